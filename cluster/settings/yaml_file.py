"""Settings as YAML; every mistake is one line that names file, line or setting and the remedy."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cluster.settings.values import NOT_YAML, Values, fields, nearest
from rollout.errors import SettingsError


class _OneOfEachName(yaml.SafeLoader):
    """YAML's own loader lets the last of two equal names win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            names |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, model: type[BaseModel]) -> Values:
    """A file of `model`'s settings -> {dotted name: value}. Raises SettingsError naming file, line or unknown name."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _OneOfEachName)
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such settings file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{path}:{line}: is not YAML ({error.problem}); correct the line") from error
    except NOT_YAML as error:
        raise SettingsError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct it") from error
    if tree is not None and not isinstance(tree, dict):
        raise SettingsError(f"{path}: holds {type(tree).__name__}, not settings; write one 'name: value' a line")
    known = [name for name, _ in fields(model)]
    values = dict(_flatten(tree or {}, known))
    for name in values:
        if name not in known:
            raise SettingsError(f"{path}: {name}: unknown setting{nearest(name, known)}")
    return values


def dump(model: BaseModel) -> str:
    """The settings as YAML that `read_yaml` and `build` read back."""
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _flatten(tree: Values, known: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A section whose settings are all commented out reads as null."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_empty = value is None and any(other.startswith(f"{name}.") for other in known)
        if is_empty or (isinstance(value, dict) and name not in known):
            yield from _flatten(value or {}, known, f"{name}.")
        else:
            yield name, value
