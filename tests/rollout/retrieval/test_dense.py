import errno
import json
import os
import pickle
import threading

import numpy as np
import pytest

from rollout.config import DataSettings
from rollout.errors import DataError, PolicyError
from rollout.retrieval import dense as dense_module
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.dense import Dense, embed_slice, kept_slices, slice_count, vectors_folder
from rollout.retrieval.encoder import load_encoder
from rollout.retrieval.open import open_retriever
from rollout.retrieval.settings import RetrieverSettings
from rollout.types import Prompt
from tests.rollout.retrieval.encoders import bare_bert
from tests.rollout.tiny import tiny_policy

RARE = ("zebra", "violin", "glacier", "saffron", "lantern")


class Counting:
    """An encoder whose vector of a text is (its length, 1); it counts the passages that it has read."""

    name, width, digest = "retriever.path counting", 2, "counting"

    def __init__(self):
        self.read = 0

    def embed_queries(self, texts):
        return np.array([[len(text), 1] for text in texts], np.float32)

    def embed_passages(self, texts):
        self.read += len(texts)
        return self.embed_queries(texts)


@pytest.fixture
def passages(tmp_path):
    rows = [{"id": f"s{i}", "title": "story", "text": f"my friend saw a {word} in town ."} for i, word in enumerate(RARE)]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "passages.jsonl"


@pytest.fixture
def corpus(passages, tmp_path):
    return Corpus.open(passages, tmp_path / "cache")


def slices_of(corpus, encoder, size=2, dtype="float32"):
    return kept_slices(corpus, encoder, size, dtype)


def test_slices_are_made_once_and_mapped_afterwards(corpus):
    encoder = Counting()
    made = slices_of(corpus, encoder)
    assert [len(each) for each in made] == [2, 2, 1] and slice_count(5, 2) == 3 and encoder.read == 5
    again = slices_of(corpus, encoder)
    assert encoder.read == 5 and all(isinstance(each.base, np.memmap) for each in again)
    assert np.array_equal(np.concatenate(again), [[len(f"story my friend saw a {word} in town ."), 1] for word in RARE])


def test_a_slice_that_is_lost_is_made_again_with_the_same_bits(corpus, tmp_path):
    encoder = load_encoder(RetrieverSettings(path=str(bare_bert(tmp_path / "bert"))), "cpu")
    before = [np.array(each) for each in slices_of(corpus, encoder)]
    folder = vectors_folder(corpus, encoder, 2, "float32") / "000001"
    (folder / "vectors.npy").unlink()
    folder.rmdir()
    assert all(np.array_equal(*pair) for pair in zip(before, slices_of(corpus, encoder), strict=True))
    assert np.array_equal(before[1], embed_slice(corpus, encoder, 1, 2, "float32"))


def test_builders_at_once_do_each_other_no_harm(corpus):
    results = []
    threads = [threading.Thread(target=lambda: results.append(np.concatenate(slices_of(corpus, Counting())))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(results[0], each) for each in results)
    folder = vectors_folder(corpus, Counting(), 2, "float32")
    assert sorted(each.name for each in folder.iterdir()) == ["000000", "000001", "000002"]


def test_a_full_disk_leaves_nothing_behind(corpus, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(dense_module.np, "save", full)
    with pytest.raises((OSError, DataError)):
        slices_of(corpus, Counting())
    assert list(vectors_folder(corpus, Counting(), 2, "float32").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "cannot be read"), (b"\x93NUMPY", "cannot be read"), (None, "holds float32")]
)
def test_a_damaged_slice_is_told_with_the_remedy(corpus, content, told):
    slices_of(corpus, Counting())
    file = vectors_folder(corpus, Counting(), 2, "float32") / "000000" / "vectors.npy"
    if content is None:
        np.save(file, np.zeros((2, 3), np.float32))
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=f"{file}: {told}.*; remove {file.parent}, it is made again"):
        slices_of(corpus, Counting())


def test_an_index_finds_what_its_encoder_puts_near(corpus):
    index = Dense(Counting(), len(corpus))
    index.load(slices_of(corpus, index.encoder), "first")
    [hits] = index.search(["ten chars."], 2)
    longest = [2, 3]  # glacier and saffron: of equal length, in their order
    assert [hit.position for hit in hits] == longest and hits[0].score == 10 * len(
        "story my friend saw a glacier in town ."
    ) + 1
    assert index.scores(["ten chars."], [longest])[0].tolist() == [hit.score for hit in hits]
    assert index.loaded == "first" and index.search([], 2) == []


def test_vectors_of_another_width_or_number_are_refused(corpus):
    index = Dense(Counting(), len(corpus))
    with pytest.raises(PolicyError, match="counting: gives vectors of width 2, those of the index have 3; give the encoder"):
        index.load([np.zeros((5, 3), np.float32)], "wide")
    with pytest.raises(ValueError, match="4 vectors of 5 passages"):
        index.load([np.zeros((4, 2), np.float32)], "few")
    with pytest.raises(RuntimeError, match="before any were given"):
        index.search(["x"], 1)


def test_vectors_beyond_float16_are_refused(corpus):
    class Large(Counting):
        def embed_passages(self, texts):
            return 1e6 * super().embed_passages(texts)

    with pytest.raises(PolicyError, match="its vectors exceed float16; set retriever.dtype to float32 or bfloat16"):
        slices_of(corpus, Large(), dtype="float16")
    assert slices_of(corpus, Large(), dtype="bfloat16")[0].dtype == np.uint16


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_settings_retriever_finds_by_vectors_alone(passages, tmp_path, dtype):
    data = DataSettings(passages=passages, cache=tmp_path / "cache", language="en", query="all")
    settings = RetrieverSettings(mode="dense", dtype=dtype, slice_passages=2)
    [found] = open_retriever(data, 1, settings, tiny_policy().tokenizer).retrieve(
        [Prompt(id="q", question="my friend saw a violin in town", answers=("x",))]
    )
    assert found.passages[0].id == "s1" and len(found.ranking) == 5 and found.parts == {}
    assert not list(Corpus.open(passages, tmp_path / "cache").folder.glob("bm25*"))


def test_a_kept_slice_is_handed_on_without_a_copy_and_may_be_read_by_others(corpus):
    """Ray stores plain arrays once a node; of a subclass of them each process would hold a copy."""
    [first, *_] = slices_of(corpus, Counting())
    buffers = []
    assert len(pickle.dumps(first, protocol=5, buffer_callback=buffers.append)) < first.nbytes + 200 and len(buffers) == 1
    folder = vectors_folder(corpus, Counting(), 2, "float32") / "000000"
    umask = os.umask(0)
    os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
