"""The code behind a user's own reward, by its content."""

import ast
import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from reward.config import ExtraReward
from rollout.digests import digest_of, digest_of_file

INSTALLED = ("site-packages", "dist-packages")


def source_digest(extra: ExtraReward) -> str:
    """Of its module's file and of those modules beside it that it imports, directly or through others. Of a module that is
    installed, or of none in Python, of its file alone; what code reads from elsewhere is not seen."""
    name = extra.function.partition(":")[0]
    file = getattr(importlib.import_module(name), "__file__", None)
    if file is None:
        return ""
    path = Path(file).resolve()
    top = path.parents[name.count(".") + (path.name == "__init__.py")]
    files, wanted = {path}, [] if set(INSTALLED) & set(path.parts) else [path]
    while wanted:
        beside = {found for module in _imported(wanted.pop(), top) for found in _files(top, module)}
        wanted += beside - files
        files |= beside
    return digest_of(f"{each.name} {digest_of_file(each)}" for each in sorted(files))


def _imported(path: Path, top: Path) -> Iterator[str]:
    """Dotted names of what a module may import."""
    if path.suffix != ".py":
        return
    package = ".".join(path.relative_to(top).parent.parts)
    with contextlib.suppress(SyntaxError, ImportError):  # of what is never imported in fact
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                whence = importlib.util.resolve_name(f"{'.' * node.level}{node.module or ''}", package)
                yield from (f"{whence}.{alias.name}" for alias in node.names)


def _files(top: Path, module: str) -> Iterator[Path]:
    """Of a module and its packages, as far as they lie here."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        place = top.joinpath(*parts[:depth])
        yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())
