"""A policy that a command was given: a run's checkpoint with its settings, or a plain model folder with those given now."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.settings.effects import check_effects_of_flags
from cluster.settings.flags import Flag, flags_of, parse_flags
from cluster.settings.places import PLACES, check_model_there
from cluster.settings.tree import Settings, absolute, absolute_model, read_by
from cluster.settings.values import Values, build
from cluster.settings.yaml_file import read_yaml
from cluster.store import checkpoint
from cluster.store.checkpoint import RunState
from cluster.store.run_folder import RunFolder
from rollout.config import DataSettings, Section
from rollout.data.file_settings import Files
from rollout.errors import PolicyError, SettingsError
from rollout.policy import adapters
from rollout.policy.loading import with_family_templates
from rollout.policy.model_digest import model_digest
from rollout.retrieval.settings import RetrieverSettings
from rollout.setting_tags import Reader

EXPORTED_SETTINGS = "lapdog.yaml"
CHECKPOINT = "a run folder (its newest checkpoint), checkpoints/step-N, latest, best, or a plain model folder"
ITS_OWN = "the checkpoint's"
LEFT_OUT = "Settings that you leave out come from the checkpoint or the export; any other model folder has their defaults."


@dataclass(frozen=True, slots=True)
class PolicySource:
    """folder: the checkpoint or model folder; path: what `load_policy` takes. state: None for a plain model folder."""

    folder: Path
    path: str
    state: RunState | None
    settings: Settings


def flags_of_a_policy(
    command: Reader, about: str | None, options: type[Section], argv: Sequence[str], beside: Sequence[Flag] = ()
) -> Values:
    """`parse_flags` of a command that opens a policy, whose help says where settings come from."""
    settings = flags_of(Settings, only=read_by(command), default=ITS_OWN)
    return parse_flags(command, f"{about} {LEFT_OUT}", argv, [*flags_of(options), *settings], beside)


def open_policy(
    given: Path,
    values: Values,
    config: Path | None = None,
    passages: Files | None = None,
    surroundings: Collection[str] = (),
) -> PolicySource:
    """The settings are the checkpoint's or the export's own, or those of `config`, under `values` and `passages`.
    surroundings: as `check_effects` takes them.

    Raises CheckpointError, PolicyError or SettingsError.
    """
    folder, state = checkpoint.open_for_evaluation(given)
    path = str(folder / "policy") if state is not None else str(folder)
    told = told_by(folder) if state is not None else {}
    model_of = absolute_model(values.get("policy.path", told.get("policy.path")))
    if "policy.path" in values and not adapters.are_in(path):
        raise SettingsError(f"policy.path: {path} holds no adapters, which alone need another model; leave it out")
    if config is not None:
        told = read_yaml(config, Settings)
    elif state is None and (folder / EXPORTED_SETTINGS).is_file():
        told = read_yaml(folder / EXPORTED_SETTINGS, Settings)
    settings = build(Settings, told | values).as_used()
    check_effects_of_flags(settings, values, surroundings)
    data, retriever = _searched(settings, values, passages)
    if adapters.are_in(path):
        _check_model_of_adapters(path, model_of, RunFolder(folder).digests().get("policy"))
    policy = with_family_templates(path, settings.policy.with_values(path=model_of))
    untrained = settings.model_copy(
        update={"data": data, "policy": policy, "retriever": retriever}
    )  # passages without training data are no mistake
    return PolicySource(folder, path, state, untrained)


def _searched(settings: Settings, values: Values, passages: Files | None) -> tuple[DataSettings, RetrieverSettings]:
    """The passages or the server that are given now, in place of the run's own."""
    data, retriever = settings.data, settings.retriever
    if passages is not None and values.get("retriever.url") is not None:
        raise SettingsError("passages: nobody reads them with retriever.url; leave one of them out")
    if passages is not None:
        return data.with_values(passages=[*map(absolute, passages)]), retriever.with_values(url=None)
    return (data if retriever.url is None else data.with_values(passages=None)), retriever


def told_by(folder: Path) -> Values:
    """What the run of a checkpoint was told; places as the run knows them now, if the checkpoint lies in it."""
    told, run = read_yaml(folder / "config.yaml", Settings), RunFolder(folder.parent.parent)
    if folder.parent == run.checkpoints and (run.path / "config.yaml").is_file():
        told |= {name: value for name, value in run.told().items() if name in (*PLACES, "run_dir")}
    return told


def _check_model_of_adapters(path: str, model_of: str | None, trained_on: str | None) -> None:
    """Raise SettingsError where it is not to be found, PolicyError where they were trained on another."""
    check_model_there("policy.path", model_of or adapters.base_model(path))
    if model_of is not None and trained_on not in (None, model_digest(model_of)):
        raise PolicyError(f"{model_of}: is not the model that {path} was trained on; put it back, or name it by --policy.path")
