"""Pages of the documentation, and a shell that does what they say.

Comments that a reader does not see say what becomes of the fenced block beneath them:

    run                 bash runs it in a copy of the project; a page's blocks run in order, in one folder; exit code 0
    run exit=2          the same with another exit code
    run slow            run by the slow tests alone
    run background      left running until the page ends
    run needs=PROGRAM   the page is skipped where that is missing
    run small [FLAGS]   from here on, SMALL, TINY and the flags are added to training runs: a model and a run of a few seconds
    file NAME           the block is written to that file
    output              what the last run prints, in this order: any number stands for any other, … for any text, a line of …
                        alone for any lines; what runs in the background may take its time to print it

A comment of several lines that begins with `run` holds the commands itself: what a reader has done before. The files
train.jsonl, valid.jsonl, passages.jsonl and story.jsonl are those of the demo, until a page writes others; what HEAD, /shared
and the ports are, `Shell` tells.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from rollout.data.demo import write_demo
from tests import launcher
from tests.cluster.head import free_ports
from tests.cluster.runs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TINY = (
    "--policy.tiny.d_model 16 --policy.tiny.heads 2 --policy.tiny.d_kv 8 --policy.tiny.d_ff 32 --policy.tiny.layers 1 "
    "--policy.tiny.vocab_size 300"
)
SMALL = (
    "--supervised.steps 2 --supervised.batch_size 4 --learner.steps 2 "
    "--rollout.prompts_per_step 4 --rollout.max_new_tokens 6 --cluster.threads 1"
)
# a training run gets what the file `small` says, and is of a tiny model where it is given none
PYTHON = """#!/bin/bash
if [ "$1" = launch.py ] && [[ "${{2:-train}}" == train || "$2" == --run_dir ]]; then
    [[ -s {folder}/small && "$*" != *--policy.path* ]] && set -- "$@" {tiny}
    [[ -s {folder}/small && ( "$*" != *--data.train* || "$*" = *--data.valid* ) ]] && set -- "$@" --eval_limit 8
    set -- "$@" $(cat {folder}/small)
fi
exec {python} "$@"
"""
# another Ray on this machine may hold the usual ports, and what `ray start` leaves behind is to end with the page
RAY = """#!/bin/bash
[ "$1" = start ] || exec {ray} "$@"
free='import sys; sys.path.insert(0, "{root}"); from tests import launcher
from tests.cluster.head import free_ports; print(*free_ports(1))'
set -- "$@" --dashboard-agent-listen-port=$({python} -c "$free")
[ "$2" = --head ] && set -- "$@" --temp-dir={short}
[[ "$2" = --head && "$*" != *--dashboard-port* ]] && set -- "$@" --dashboard-port=$RAY_DASHBOARD_PORT
[[ "$*" = *--block* ]] && exec {ray} "$@"
said=$(mktemp -p {short})
{ray} "$@" --block >$said 2>&1 &
until grep -q "Ray runtime started" $said; do kill -0 $! || break; sleep 0.1; done
cat $said
kill -0 $!
"""
DEADLINE_S = 300
BLOCK = re.compile(
    r"^<!-- (?P<hidden_order>run\b[^>\n]*)\n(?P<hidden>.*?)^-->$"
    r"|^(?:<!-- (?P<order>(?:run|file|output)\b[^>\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
NUMBER = r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Block:
    order: tuple[str, ...]
    language: str
    text: str

    @property
    def kind(self) -> str:
        return self.order[0] if self.order else ""

    @property
    def exit_code(self) -> int:
        return next((int(word.removeprefix("exit=")) for word in self.order if word.startswith("exit=")), 0)

    @property
    def needs(self) -> list[str]:
        return [word.removeprefix("needs=") for word in self.order if word.startswith("needs=")]

    @property
    def small(self) -> str:
        return " ".join([SMALL, *self.order[self.order.index("small") + 1 :]]) if "small" in self.order else ""


def blocks(page: Path) -> list[Block]:
    found = []
    for each in BLOCK.finditer(page.read_text(encoding="utf-8")):
        order, text = (each["hidden_order"], each["hidden"]) if each["hidden"] else (each["order"], each["text"])
        found.append(Block(tuple((order or "").split()), each["language"] or "", text))
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


class Shell:
    """A copy of the project in `folder`, and bash in it. A page's ports are free ones, its /shared a folder beside, HEAD this
    machine; HOME is empty."""

    def __init__(self, folder: Path):
        self._folder, self._project = folder, folder / "project"
        for name in ("bin", "shared", "home"):
            (folder / name).mkdir()
        _copy_project(self._project)
        write_demo(self._project, seed=0)
        shutil.copy(self._project / "passages.jsonl", self._project / "story.jsonl")
        self._short = tempfile.mkdtemp(prefix="ray-")  # a socket's path is 107 characters long at most
        ray = Path(sys.executable).with_name("ray")
        programs = {
            "python": PYTHON.format(folder=folder, python=launcher.python(), tiny=TINY),
            "ray": RAY.format(short=self._short, python=sys.executable, ray=ray, root=ROOT),
        }
        for name, script in programs.items():
            path = folder / "bin" / name
            path.write_text(script)
            path.chmod(0o755)
        (folder / "small").touch()
        gcs, dashboard, prometheus, retrieve = free_ports(4)
        shared = str(folder / "shared")
        self._places = {"/shared": shared, r"\bHEAD": "127.0.0.1", ":8265": f":{dashboard}", ":9090": f":{prometheus}"}
        self._places |= {":6379": f":{gcs}", "=6379": f"={gcs}", ":8000": f":{retrieve}", "port 8000": f"port {retrieve}"}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._environment |= {"RAY_PORT": str(gcs), "RAY_DASHBOARD_PORT": str(dashboard), "HF_HUB_OFFLINE": "1"}
        places = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment |= {"HOME": str(folder / "home"), "PATH": places, "WANDB_MODE": "offline"}
        self._processes: list[subprocess.Popen[bytes]] = []

    def follow(self, page: Path, slow: bool) -> None:
        """Do what the page says, with its slow parts or without."""
        for program in (program for block in blocks(page) for program in block.needs if slow or "slow" not in block.order):
            if shutil.which(program, path=self._environment["PATH"]) is None:
                pytest.skip(f"no {program}: apt-get install {program} (Debian)")
        skipped = False
        for block in blocks(page):
            match block.kind:
                case "file":
                    (self._project / block.order[1]).write_text(block.text, encoding="utf-8")
                case "run":
                    skipped = "slow" in block.order and not slow
                    if not skipped:
                        self.run(block)
                case "output" if not skipped:
                    self.expect(block.text)

    def run(self, block: Block) -> None:
        """What a block exports is there in the next ones."""
        if block.small:
            (self._folder / "small").write_text(block.small)
        exports = self._folder / "exports"
        before = f"[ -e {exports} ] && . {exports}; set -e"
        script = f"{before}; trap 'export -p >{exports}' EXIT\n{self._here(block.text)}"
        with self._output(len(self._processes)).open("wb") as output:
            command = ["bash", "-c", script]
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            started = subprocess.Popen(command, cwd=self._project, env=self._environment, start_new_session=True, **streams)
        self._processes.append(started)
        if "background" not in block.order:
            code = started.wait(DEADLINE_S)
            assert code == block.exit_code, f"exit code {code} of\n{block.text}\n{self._said()}"

    def expect(self, quoted: str) -> None:
        """The last run has printed what is quoted, or does so before its deadline."""
        pattern, deadline = as_pattern(self._here(quoted)), time.monotonic() + DEADLINE_S
        going_on = True
        while not pattern.search(self._said()):
            assert going_on and time.monotonic() < deadline, f"never printed:\n{quoted}\nbut\n{self._said()}"
            try:
                self._processes[-1].wait(0.2)
                going_on = False
            except subprocess.TimeoutExpired:
                continue

    def close(self) -> None:
        """End what was left running, workers before their head."""
        for process in reversed(self._processes):
            group = _members(process.pid)
            if group:
                os.killpg(process.pid, signal.SIGTERM)
            _, alive = psutil.wait_procs(group, DEADLINE_S)
            assert not alive, f"still running: {alive}"
        shutil.rmtree(self._short, ignore_errors=True)

    def _here(self, text: str) -> str:
        for place, here in self._places.items():
            text = re.sub(rf"{place}\b", here, text)
        return text

    def _output(self, number: int) -> Path:
        return self._folder / f"output-{number}"

    def _said(self) -> str:
        text = self._output(len(self._processes) - 1).read_text(encoding="utf-8", errors="replace")
        return re.sub(r"\x1b\[[\d;]*m", "", text)


def as_pattern(quoted: str) -> re.Pattern[str]:
    """Lines that follow each other, but where a line of … stands."""
    lines = [" ".join(line.split()) for line in quoted.strip().splitlines()]
    patterns = [r"(?:.*\n)*?" if line == "…" else rf"[ \t]*{_line_pattern(line)}[ \t]*(?:\n|\Z)" for line in lines]
    return re.compile("^" + "".join(patterns), re.M)


def _line_pattern(line: str) -> str:
    special = {"…": ".*", " ": r"[ \t]+"}
    parts = re.split(rf"({NUMBER}|…| )", line)
    return "".join(NUMBER if re.fullmatch(NUMBER, part) else special.get(part, re.escape(part)) for part in parts)


def _members(group: int) -> list[psutil.Process]:
    """The processes of a group."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members


def _copy_project(target: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and was not removed since
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
