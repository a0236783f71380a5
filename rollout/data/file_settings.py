"""Files as settings name them: one path, several, or sets of them by name."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from rollout.data.files import unpacked
from rollout.data.rows import listed

NAME = re.compile(r"[\w.-]+")
UNNAMED = "valid"


def paths_in(setting: Any) -> Any:
    """One path as a list of one."""
    given = listed(setting)
    if not given or not all(isinstance(path, str | Path) and str(path) for path in given):
        raise ValueError("names no path; give one")
    return given


def shortest(paths: tuple[Path, ...]) -> str | list[str]:
    """A list of one path as that path."""
    return str(paths[0]) if len(paths) == 1 else [str(path) for path in paths]


Files = Annotated[tuple[Path, ...], BeforeValidator(paths_in), PlainSerializer(shortest)]


def named(valid: Any) -> Any:
    """{name: paths}: a mapping as it is, several paths as a set each, by their stems, one path as the set `valid`."""
    if isinstance(valid, dict):
        if not valid or not all(isinstance(name, str) and NAME.fullmatch(name) for name in valid):
            raise ValueError("names each set of files by letters, digits and . _ -; give {name: path}")
        return valid
    paths = paths_in(valid)
    if len(paths) == 1:
        return {UNNAMED: paths}
    stems = [unpacked(Path(path)).stem for path in paths]
    if (twice := next((stem for i, stem in enumerate(stems) if stem in stems[:i]), None)) is not None:
        raise ValueError(f"has two sets called {twice}; give {{name: path}}")
    return named({stem: [path] for stem, path in zip(stems, paths, strict=True)})


def unnamed(valid: dict[str, tuple[Path, ...]]) -> Any:
    """What `named` makes the same of."""
    given = {name: shortest(paths) for name, paths in valid.items()}
    return given[UNNAMED] if list(given) == [UNNAMED] and isinstance(given[UNNAMED], str) else given


HeldOutFiles = Annotated[dict[str, Files], BeforeValidator(named), PlainSerializer(unnamed)]
