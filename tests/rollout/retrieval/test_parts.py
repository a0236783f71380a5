import json

import numpy as np
import pytest

from rollout.config import DataSettings
from rollout.retrieval.index import Part
from rollout.retrieval.open import open_retriever, open_source
from rollout.retrieval.part import IndexPart
from rollout.retrieval.settings import RetrieverSettings
from rollout.types import Prompt
from tests.rollout.retrieval.encoders import WORDS
from tests.rollout.tiny import tiny_policy

PASSAGES = 37


@pytest.fixture
def data(tmp_path):
    """Passages of which many are equal, so that ties go across parts; 6 shards."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(PASSAGES // 2)]
    rows = [{"id": f"p{i}", "text": texts[i % len(texts)]} for i in range(PASSAGES)]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"passages": tmp_path / "passages.jsonl", "cache": tmp_path / "cache", "language": "en", "query": "all"}
    return DataSettings(shard_passages=7, **told)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_policy().tokenizer


def opened(data, settings, tokenizer, count):
    parts = [IndexPart(Part(number, count), data, settings, lambda: tokenizer) for number in range(count)]
    for part in parts:
        part.open()
    return parts


def asked(parts):
    return lambda method, *arguments: [getattr(part, method)(*arguments) for part in parts]


PROMPTS = [Prompt(id=str(i), question=" ".join(WORDS[i : i + 3]), answers=()) for i in range(0, 16, 2)]


@pytest.mark.parametrize("mode", ["lexical", "dense", "hybrid"])
@pytest.mark.parametrize("count", [1, 2, 5, 9])  # of 6 shards and 8 slices
def test_parts_together_find_what_one_index_finds_to_the_bit(data, tokenizer, mode, count):
    settings = RetrieverSettings(mode=mode, slice_passages=5, candidates=4, lexical=3)
    whole = open_retriever(data, 4, settings, tokenizer)
    source = open_source(data, 4, settings, tokenizer, ask_parts=asked(opened(data, settings, tokenizer, count)))
    wanted = whole.retrieve(PROMPTS)
    assert source.find([prompt.question for prompt in PROMPTS], 4) == wanted
    assert len({retrieval.ranking for retrieval in wanted}) > 4


def test_every_shard_and_slice_is_of_one_part():
    for count in range(12):
        shares = [Part(number, 5).share(count) for number in range(5)]
        assert [i for share in shares for i in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_part_embeds_its_own_slices_alone_and_those_that_are_missing(data, tokenizer):
    settings = RetrieverSettings(mode="dense", slice_passages=5)
    part = IndexPart(Part(1, 3), data, settings, lambda: tokenizer)
    assert list(part.slices()) == [2, 3, 4]
    part.embed(3)
    made = {file.parent.name: file.stat().st_mtime_ns for file in data.cache.rglob("vectors.npy")}
    part.open()
    after = {file.parent.name: file.stat().st_mtime_ns for file in data.cache.rglob("vectors.npy")}
    assert set(made) == {"000003"} and set(after) == {"000002", "000003", "000004"} and made.items() <= after.items()


def test_by_words_alone_no_vector_is_made_and_the_other_way_round(data, tokenizer):
    [lexical] = opened(data, RetrieverSettings(), tokenizer, 1)
    assert not lexical.slices() and not list(data.cache.rglob("vectors*"))
    other = data.with_values(cache=data.cache.parent / "another")
    opened(other, RetrieverSettings(mode="dense"), tokenizer, 1)
    assert not list(other.cache.rglob("bm25*"))


def test_a_score_keeps_the_sign_of_a_zero(data, tokenizer):
    parts = opened(data, RetrieverSettings(mode="dense", slice_passages=5), tokenizer, 3)
    query = np.zeros((1, 128), np.float32)
    own, *others = (part.products(query, [np.array([12])])[0] for part in (parts[1], parts[0], parts[2]))
    assert not np.signbit(own) and all(np.signbit(each) and each == 0 for each in others)
