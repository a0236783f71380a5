"""What must not change between a run and its resumption."""

from collections.abc import Sequence
from pathlib import Path

from cluster.settings.places import PLACES, paths_of
from cluster.settings.tree import Settings
from cluster.settings.values import by_name
from cluster.store.checkpoint import RunState
from cluster.training.inputs import Inputs
from rollout.data.files import shown
from rollout.errors import DataError, PolicyError, SettingsError
from rollout.setting_tags import Fixed, tagged

FIXED = tuple(dict.fromkeys(name.partition(".")[0] for name, _ in tagged(Settings, Fixed)))  # sections as a whole


def check_fixed(before: Settings, settings: Settings, names: Sequence[str] = FIXED) -> None:
    """Raise SettingsError where a resumed run would not go on with what its folder holds; where that lies may change."""
    was, now = by_name(before), by_name(settings)
    for name in names:
        kept = [each for each in now if each.partition(".")[0] == name]
        if any((now[each] is None) != (was[each] is None) if each in PLACES else now[each] != was[each] for each in kept):
            raise SettingsError(f"{name}: differs from the run's own, which a resumed run keeps; leave it out")


def check_inputs(begun_with: dict[str, str], settings: Settings, inputs: Inputs) -> None:
    """Raise DataError for a file that says something else than when the run was begun; of columns that only a user's rewards
    read, where it has read them before and does now."""
    for name, digest in begun_with.items():
        if inputs.digests.get(name, digest) != digest:
            files = list(paths_of(getattr(settings.data, name.partition(".")[0])))
            raise DataError(f"{shown(files)}: is not what the run was begun with; put it back, or start anew")


def check_models(begun_with: dict[str, str], settings: Settings, digests: dict[str, str], stage: str) -> None:
    """Raise PolicyError for a model that is another than when the run was begun; a reference until its stage began may be.

    digests: of the models now. stage: of the checkpoint, empty without one.
    """
    places = {
        "policy": ("policy.path", settings.policy.path),
        "retriever": ("retriever.path", settings.retriever.path),
    }
    if stage == "rl":
        places["reference"] = ("learner.reference_path", settings.learner.reference_path)
    for name, (setting, path) in places.items():
        if name in digests and begun_with.get(name, digests[name]) != digests[name]:
            remedy = f"put it back, or name it by --{setting}"
            raise PolicyError(f"{setting}: {path} is not the model that the run was begun with; {remedy}")


def check_resumable(before: Settings, settings: Settings, checkpoint: Path, state: RunState) -> None:
    """Raise SettingsError where a resumed run would not go on with what the checkpoint holds."""
    if state.stage != "supervised":
        check_fixed(before, settings, ["supervised"])
    if state.stage == "rl" and (settings.learner.reference_path is None) != (before.learner.reference_path is None):
        raise SettingsError("learner.reference_path: differs from the run's own, which its checkpoint holds; leave it out")
    stage = next((stage for stage in settings.stages() if stage.name == state.stage), None)
    if stage is None or stage.last < state.step:
        steps = "supervised.steps" if state.stage == "supervised" else "learner.steps"
        done = state.step if state.stage == "supervised" else state.step - before.supervised_steps
        raise SettingsError(f"{steps}: is below what the run has done; give {max(1, done)} or more")
    needs_reference = state.stage == "rl" and settings.learner.needs_reference()
    if needs_reference and not (checkpoint / "reference").is_dir():
        raise SettingsError("learner.kl_coef: the run was begun at 0 and keeps no reference; leave it at 0, or start anew")
