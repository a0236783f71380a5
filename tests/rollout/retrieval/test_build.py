"""What `data.cache` holds is whole, whatever happens while it is built."""

import fcntl
import json
import logging
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rollout.errors import DataError
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.build import build_once, mapped_array, write_array
from rollout.retrieval.corpus import Corpus
from rollout.text import ENGLISH

ROOT = Path(__file__).parents[3]
KILLED = """
import os, pathlib, sys
from rollout.retrieval.build import build_once

def build(target):
    (target / "half").write_text("x")
    os.kill(os.getpid(), int(sys.argv[2]))

build_once(pathlib.Path(sys.argv[1]), build)
"""


@pytest.fixture
def said(caplog, monkeypatch):
    for name, value in (("propagate", True), ("disabled", False)):  # otherwise where actors were in this process before
        monkeypatch.setattr(logging.getLogger("lapdog"), name, value)
    return caplog


@pytest.fixture
def small_disk():
    """Files of at most 8 kB, which fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def passages(path, count):
    path.write_text("".join(json.dumps({"id": i, "text": f"word{i} and more of it"}) + "\n" for i in range(count)))
    return path


def write(target):
    (target / "whole").write_text("x")


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    def build(target):
        write(target)
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        build_once(tmp_path / "cache" / "thing", build)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path, small_disk):
    def build(target):
        write_array(target / "a.npy", [np.zeros(100), np.zeros(10_000)], np.float64, 10_100)

    with pytest.raises(DataError, match=f"^{tmp_path}: File too large; make room there, or let data.cache name"):
        build_once(tmp_path / "thing", build)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_and_an_index_that_do_not_fit_the_disk_leave_nothing_behind(tmp_path, request):
    file = passages(tmp_path / "p.jsonl", 2000)
    corpus = Corpus.open(file, tmp_path / "whole")
    request.getfixturevalue("small_disk")
    for fails in (lambda: Corpus.open(file, tmp_path / "cache"), lambda: Bm25(corpus, ENGLISH, 1500)):
        with pytest.raises(DataError, match="File too large"):
            fails()
    assert list((tmp_path / "cache").iterdir()) == []
    assert {path.name for path in corpus.folder.iterdir()} == {"passages.arrow", "about.json"}


@pytest.mark.integration
@pytest.mark.parametrize(("number", "left"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGHUP, 0), (signal.SIGKILL, 2)])
def test_a_build_that_is_stopped_leaves_nothing_and_one_that_is_killed_leaves_it_to_the_next(tmp_path, number, left):
    folder = tmp_path / "cache" / "thing"
    ended = subprocess.run([sys.executable, "-c", KILLED, folder, str(int(number))], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert ended.returncode != 0 and len(list(folder.parent.iterdir())) == left
    build_once(folder, write)
    assert list(folder.parent.rglob("*")) == [folder, folder / "whole"]


def test_who_comes_while_it_is_built_says_so_and_takes_what_was_built(tmp_path, said):
    folder = tmp_path / "thing"
    built = []

    def come_late():
        build_once(folder, built.append)

    def build(target):
        late.start()
        while not said.records:
            late.join(0.01)
        write(target)

    late = threading.Thread(target=come_late)
    build_once(folder, build)
    late.join()
    assert built == [] and (folder / "whole").exists()
    assert said.messages == [f"{folder}: is built by another process; waiting for it"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_disk_without_locks_keeps_what_the_faster_of_two_built(tmp_path, monkeypatch):
    def without(file, operation):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    folder = tmp_path / "thing"

    def build(target):
        (target / "mine").write_text("slow")
        folder.mkdir()
        (folder / "theirs").write_text("fast")

    build_once(folder, build)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["theirs"]


def test_arrays_are_mapped_as_they_were_written(tmp_path):
    for blocks in ([[1, 2], [3]], [[]], []):
        values = sum(blocks, [])
        write_array(tmp_path / "a.npy", [np.array(block) for block in blocks], np.int32, len(values))
        found = mapped_array(tmp_path / "a.npy")
        assert found.dtype == np.int32 and found.tolist() == values
