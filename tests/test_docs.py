"""What the documentation says is so: its commands run, its links lead somewhere, its flags and settings exist.

How commands are marked and run is told in tests/examples/pages.py.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

import launch
from cluster.settings.reference import page as settings_page
from cluster.settings.tree import Settings
from cluster.settings.values import fields
from cluster.settings.yaml_file import read_yaml
from tests.cluster.runs import ROOT
from tests.examples.pages import PAGES, Shell, as_pattern, blocks, prose

NAMES = {name for name, _ in fields(Settings)}
NAMES |= {name.rpartition(".")[0] for name in NAMES}  # sections
SECTIONS = "|".join(sorted({name.split(".")[0] for name in NAMES if "." in name}))
DOTTED = re.compile(rf"(?<![\w/.<-])(?:--)?((?:{SECTIONS})(?:\.[a-z_][a-z_0-9]*)+)(?![\w/(])")
FILES = ("json", "yaml", "md", "py", "safetensors", "parquet", "jsonl")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs-{page.stem}")


def pages_that_run(slow: bool) -> list[Path]:
    return [page for page in PAGES if any(block.kind == "run" and ("slow" in block.order) == slow for block in blocks(page))]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.close()


@pytest.mark.parametrize("page", pages_that_run(slow=False), ids=lambda page: page.stem)
def test_commands_do_what_the_page_says(page: Path, shell: Shell) -> None:
    shell.follow(page, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_that_run(slow=True), ids=lambda page: page.stem)
def test_slow_commands_do_what_the_page_says(page: Path, shell: Shell) -> None:
    shell.follow(page, slow=True)


@pytest.mark.parametrize(
    ("quoted", "printed", "is_so"),
    [
        ("step 3 loss 0.5", "begin\nstep 12   loss -1.5e-05\n", True),
        ("step 3 loss 0.5", "step 12 lost 1", False),
        ("first\n…\nlast", "first\nsecond\nthird\nlast", True),
        ("first\nlast", "first\nsecond\nlast", False),
        ("wrote … to x.json", "wrote 3 lines to x.json", True),
        ("wrote", "wrote it", False),
    ],
)
def test_a_quoted_output_is_met_by_its_like_alone(quoted: str, printed: str, is_so: bool) -> None:
    assert bool(as_pattern(quoted).search(printed)) == is_so


def test_the_reference_of_settings_is_what_the_settings_say() -> None:
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings_page(), "write it anew: python -m cluster.settings.reference > docs/settings.md"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [
        page.name for page in PAGES if page.parent != ROOT and page.name != "README.md" and f"({page.name})" not in index
    ]
    assert not missing


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(page)):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}#{anchor}"


def told(page: Path) -> Iterator[str]:
    """Prose and blocks of a page, but for commands that are meant to fail and what is printed."""
    yield re.sub(r"\]\([^)]*\)", "]", prose(page))
    yield from (block.text for block in blocks(page) if block.kind != "output" and not block.exit_code)


def names_something_else(name: str) -> bool:
    if name.rpartition(".")[2] in FILES:
        return True
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@every_page
def test_dotted_settings_exist(page: Path) -> None:
    named = {name for text in told(page) for name in DOTTED.findall(text)}
    wrong = {name for name in named - NAMES if not names_something_else(name)}
    assert not wrong, f"{page.name} names settings that do not exist: {sorted(wrong)}"


@pytest.mark.parametrize(
    ("page", "text"),
    [(page, block.text) for page in PAGES for block in blocks(page) if block.language == "yaml"],
    ids=lambda part: part.stem if isinstance(part, Path) else "",
)
def test_settings_in_yaml_exist(page: Path, text: str, tmp_path: Path) -> None:
    (tmp_path / page.name).write_text(text)
    assert read_yaml(tmp_path / page.name, Settings)


def commands(text: str) -> Iterator[list[str]]:
    """Words of the calls of launch.py and Ray in a shell's text or a quotation, from the program's name on."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\||(?<= )-- ", line.split("  # ")[0]):
            words = part.split()
            for i, word in enumerate(words[:-1]):
                by_python = word == "launch.py" and i > 0 and words[i - 1].endswith("python")
                if by_python or (word == "ray" and all("=" in before for before in words[:i])):
                    yield words[i:]


@cache
def flags_of_ours(command: str) -> set[str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        launch.command_named(command)(["--help"])
    return set(re.findall(r"--[\w.]+(?:-[\w]+)*", said.getvalue()))


def flags_of_ray(words: list[str]) -> set[str]:
    from ray.scripts.scripts import cli  # two seconds

    command: click.Command = cli
    for word in words:
        if isinstance(command, click.Group):
            command = command.commands[word]
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@every_page
def test_flags_of_commands_exist(page: Path) -> None:
    quoted = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))
    shown = [block.text for block in blocks(page) if block.kind != "output" and not block.exit_code]
    for program, *words in (words for text in (*shown, *quoted) for words in commands(text)):
        given = {word.split("=")[0] for word in words if re.match(r"--\w", word)}
        if program == "launch.py":
            command = "train" if words[0].startswith("-") else words[0]
            if command == "COMMAND":  # any
                continue
            assert command in launch.COMMANDS, f"{page.name}: launch.py has no command {command}"
            known = flags_of_ours(command) | {"--help"}
        else:
            known = flags_of_ray(words)
        assert given <= known, f"{page.name}: {program} {words} has no {sorted(given - known)}"
