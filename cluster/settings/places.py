"""Settings that say where content lies, which may be moved: what they name is known by the content."""

import os
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from cluster.settings.tree import Settings
from cluster.settings.values import Values
from rollout.data.files import data_files
from rollout.errors import DataError, SettingsError
from rollout.retrieval.url_settings import UrlSettings
from rollout.setting_tags import Place, tagged

PLACES = dict(tagged(Settings, Place))
MODELS = ("policy.path", "retriever.path", "learner.reference_path")
NO_PATHS = ["retriever.index_actors", *(f"retriever.{name}" for name in UrlSettings.model_fields)]
FILES = ("data.train", "data.valid", "data.passages")


def relocated(told: Values, folder: Path) -> Values:
    """What a run's config.yaml says, for a run that lies in `folder` now: itself, and what lies inside it."""
    before = told.get("run_dir")
    if before is None:
        return told
    places = {name: _moved(told[name], Path(before), folder) for name in PLACES if name in told}
    return told | places | {"run_dir": str(folder)}


def _moved(value: Any, before: Path, folder: Path) -> Any:
    if isinstance(value, list):
        return [_moved(each, before, folder) for each in value]
    if isinstance(value, dict):
        return {name: _moved(each, before, folder) for name, each in value.items()}
    inside = isinstance(value, str) and Path(value).is_relative_to(before)
    return str(folder / Path(value).relative_to(before)) if inside else value


def check_absolute(settings: Settings) -> None:
    """Raise SettingsError for a path that would lead into the copy of a Ray job, which goes away."""
    for name in (place for place in PLACES if place not in NO_PATHS):
        for path in paths_of(attrgetter(name)(settings)):
            is_folder = name not in MODELS or path.is_dir()  # or else the name of a model on the hub
            if is_folder:
                check_absolute_path(name, path)


def check_absolute_path(name: str, path: Path) -> None:
    if not Path(os.path.expanduser(path)).is_absolute():
        raise SettingsError(f"{name}: {path} lies in the job's temporary copy; give an absolute path that all nodes see")


def check_there(settings: Settings, files: Sequence[str] = FILES) -> None:
    """Raise SettingsError for a model, or one of the files, that a run which goes on does not find any more."""
    for name in files:
        try:
            for path in paths_of(attrgetter(name)(settings)):
                data_files(path)
        except DataError as error:
            problem = str(error).partition(";")[0]
            raise SettingsError(f"{name}: {problem}; give --{name}, where the same files lie now") from error
    for name in MODELS:
        check_model_there(name, attrgetter(name)(settings))


def check_model_there(name: str, path: str | None) -> None:
    """The same for the model that a setting names."""
    if path is not None and Path(path).is_absolute() and not Path(path).is_dir():
        raise SettingsError(f"{name}: {path} is there no more; give --{name}, where the same model lies now")


def paths_of(value: Any) -> Iterator[Path]:
    """Of a setting that names one, several, or several by name."""
    if isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from paths_of(each)
    elif value is not None:
        yield Path(value)
