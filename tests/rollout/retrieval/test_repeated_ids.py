import json
import logging

import pytest

from rollout.retrieval import corpus as corpora
from rollout.retrieval import repeated_ids
from rollout.retrieval.corpus import Corpus


@pytest.fixture
def said(caplog, monkeypatch):
    for name, value in (("propagate", True), ("disabled", False)):  # otherwise where actors were in this process before
        monkeypatch.setattr(logging.getLogger("lapdog"), name, value)
    return caplog


def write(path, *ids):
    """A passage a line; None is a blank line."""
    path.write_text("".join("\n" if id is None else json.dumps({"id": id, "text": f"of {id}"}) + "\n" for id in ids))
    return path


def test_passages_of_one_id_are_both_kept_and_said(tmp_path, said):
    corpus = Corpus.open(write(tmp_path / "p.jsonl", "a", "a"), tmp_path / "cache")
    assert corpus.ids([0, 1]) == ("a", "a")
    assert said.messages == [f"{tmp_path}/p.jsonl:2: passage id 'a' stands on line 1 already; both are kept"]


def test_the_first_place_is_named_by_file_and_line_in_the_order_of_the_files(tmp_path, said, monkeypatch):
    monkeypatch.setattr(corpora, "ROWS_PER_BATCH", 2)
    monkeypatch.setattr(repeated_ids, "HASHES", 3)  # so few in memory at once
    files = [write(tmp_path / "1.jsonl", "a", None, "b", "c"), write(tmp_path / "2.jsonl", "d", "b", None, 1, "d", "a", "1")]
    Corpus.open(files, tmp_path / "cache")
    one, two = files
    assert said.messages == [
        f"{two}:2: passage id 'b' stands in {one}:3 already; both are kept",
        f"{two}:5: passage id 'd' stands on line 1 already; both are kept",
        f"{two}:6: passage id 'a' stands in {one}:1 already; both are kept",
        f"{two}:7: passage id '1' stands on line 4 already; both are kept",
    ]


def test_equal_hashes_of_different_ids_are_no_repetition(tmp_path, said, monkeypatch):
    monkeypatch.setattr(repeated_ids, "_hashes", lambda batch: repeated_ids.np.zeros(batch.num_rows, int))
    Corpus.open(write(tmp_path / "p.jsonl", "a", "b", "c", "b"), tmp_path / "cache")
    assert said.messages == [f"{tmp_path}/p.jsonl:4: passage id 'b' stands on line 2 already; both are kept"]


def test_long_passages_are_kept_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "CHARACTERS_PER_BATCH", 6)
    corpus = Corpus.open(write(tmp_path / "p.jsonl", *"abcde"), tmp_path / "cache")
    assert list(corpus.texts()) == [f"of {id}" for id in "abcde"]
    assert list(corpus.texts(1, 4)) == ["of b", "of c", "of d"] and list(corpus.texts(4)) == ["of e"]
