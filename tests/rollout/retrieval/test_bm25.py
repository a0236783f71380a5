"""Shards are searched as one: the scores are bm25s' own, to the bit, and ties go by position."""

import json
import tracemalloc
from collections import Counter
from math import log

import bm25s
import numpy as np
import pytest
from bm25s.tokenization import Tokenized
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.retrieval import corpus as corpora
from rollout.retrieval import postings, repeated_ids
from rollout.retrieval.bm25 import Bm25, best_places
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import Hit
from rollout.retrieval.words import Words
from rollout.text import ENGLISH

WORDS = "ape bear crow deer eel fox gnu hare ibis jay kite lynx".split()


@pytest.fixture
def open_index(tmp_path):
    """Makes a Bm25 of texts; each in a cache of its own."""
    number = iter(range(1000))

    def opened(texts, shard_passages):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        with (folder / "p.jsonl").open("w", encoding="utf-8") as file:
            for i, text in enumerate(texts):
                file.write(json.dumps({"id": i, "text": text}) + "\n")
        return Bm25(Corpus.open(folder / "p.jsonl", folder / "cache"), ENGLISH, shard_passages)

    return opened


def random_texts(count, seed=0):
    """Of very different lengths; every ninth without a word, and rare words in a few."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, len(WORDS) + 1)
    drawn = [rng.choice(WORDS, rng.integers(1, 30), p=chances / chances.sum()) for _ in range(count)]
    return ["?" if i % 9 == 8 else " ".join([*words, f"rare{i // 5}"]) for i, words in enumerate(drawn)]


def scores_of_bm25s(texts, query):
    """float32 [len(texts)], of the library itself on the whole corpus."""
    vocabulary = {}
    ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in ENGLISH.search_tokens(text)] for text in texts]
    index = bm25s.BM25()
    index.index(Tokenized(ids, vocabulary), show_progress=False)
    tokens = [token for token in ENGLISH.search_tokens(query) if token in vocabulary]
    return index.get_scores(tokens) if tokens else np.zeros(len(texts), np.float32)


def ranked(scores, depth):
    """Slow and plain: the best above zero, the first of equal ones."""
    order = sorted(range(len(scores)), key=lambda position: (-scores[position], position))
    return [Hit(position, float(scores[position])) for position in order[:depth] if scores[position] > 0]


@pytest.mark.parametrize("shard_passages", [1000, 100, 33, 29, 1])  # 1, 2, 7 and 8 shards, the last ones uneven; 200
def test_shards_give_the_scores_of_bm25s_to_the_bit_and_ties_by_position(open_index, shard_passages):
    texts = random_texts(200)
    index = open_index(texts, shard_passages)
    queries = ["ape bear lynx", "rare7 fox", "fox fox rare39 ape", "unknown", "", "lynx rare3 rare3 kite"]
    for query, hits in zip(queries, index.search(queries, 20), strict=True):
        assert hits == ranked(scores_of_bm25s(texts, query), 20)
    assert index.size == 200


@pytest.mark.parametrize("shard_passages", [1000, 33])
def test_given_passages_have_the_scores_that_a_search_finds(open_index, shard_passages):
    texts = random_texts(200)
    queries = ["ape bear lynx", "fox fox rare39", "unknown"]
    positions = [list(range(200)), [199, 0, 33, 33, 32], []]
    found = open_index(texts, shard_passages).scores(queries, positions)
    for query, wanted, scores in zip(queries, positions, found, strict=True):
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, scores_of_bm25s(texts, query)[wanted])


def test_a_score_is_lucenes():
    """Robertson and Zaragoza's formula by hand: ln(1 + (N - df + .5) / (df + .5)) * tf / (tf + k1 (1 - b + b L / mean L))."""
    [score] = scores_of_bm25s(["ape bear", "bear bear crow deer"], "ape")[:1]
    assert score == pytest.approx(log(1 + 1.5 / 1.5) * 1 / (1 + 1.5 * (0.25 + 0.75 * 2 / 3)))


def test_equal_passages_are_found_in_the_corpus_order_across_shards(open_index):
    for shard_passages in (2, 3, 100):
        index = open_index(["ape crow"] * 7 + ["ape ape crow"], shard_passages)
        [hits] = index.search(["ape"], 5)
        assert [hit.position for hit in hits] == [7, 0, 1, 2, 3]


@pytest.mark.parametrize("shard_passages", [2000, 700])
def test_among_many_more_than_are_wanted_the_first_of_equal_ones_are_found(open_index, shard_passages):
    texts = [random_texts(40)[place] for place in np.random.default_rng(1).integers(0, 40, 1500)]
    index = open_index(texts, shard_passages)
    scores = scores_of_bm25s(texts, "ape lynx")
    for depth in (1, 2, 10, 30):
        assert index.search(["ape lynx"], depth) == [ranked(scores, depth)]


def test_long_passages_make_smaller_shards(open_index, monkeypatch):
    monkeypatch.setattr(postings, "TOKENS", 50)
    texts = random_texts(60)
    index = open_index(texts, 1000)
    assert len(index._shards) > 5
    assert index.search(["ape lynx"], 60) == [ranked(scores_of_bm25s(texts, "ape lynx"), 60)]


def test_an_index_that_stands_is_used_whatever_the_shards(open_index, tmp_path):
    index = open_index(random_texts(40), 7)
    again = Bm25(Corpus.open(tmp_path / "0" / "p.jsonl", tmp_path / "0" / "cache"), ENGLISH, 1000)
    assert len(index._shards) == len(again._shards) == 6


def test_a_deeper_search_than_there_are_passages_finds_all_and_none_finds_none(open_index):
    index = open_index(["ape", "bear", "ape crow"], 2)
    assert [len(hits) for hits in index.search(["ape", "bear", "fox"], 100)] == [2, 1, 0]
    assert index.search(["ape"], 0) == [[]]


@given(
    st.lists(st.lists(st.sampled_from(WORDS[:5]), max_size=6), min_size=1, max_size=25),
    st.lists(st.sampled_from(WORDS[:6]), max_size=4),
    st.integers(1, 9),
    st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_any_corpus_is_searched_as_an_exact_reference_does(tmp_path_factory, passages, query, shard_passages, depth):
    texts = [" ".join(words) or "?" for words in passages]
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "p.jsonl").write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    corpus = Corpus.open(folder / "p.jsonl", folder / "cache")
    if not any(passages):
        return
    index = Bm25(corpus, ENGLISH, shard_passages)
    wanted = scores_of_bm25s(texts, " ".join(query))
    assert index.search([" ".join(query)], depth) == [ranked(wanted, depth)]
    assert index.scores([" ".join(query)], [range(len(texts))])[0].tolist() == wanted.tolist()
    mean = sum(map(len, passages)) / len(passages)
    exact = [sum(exact_part(word, words, passages, mean) for word in query) for words in passages]
    np.testing.assert_allclose(wanted, exact, rtol=1e-5)


def exact_part(word, words, passages, mean):
    frequency = sum(word in other for other in passages)
    idf = log(1 + (len(passages) - frequency + 0.5) / (frequency + 0.5))
    times = Counter(words)[word]
    return idf * times / (times + 1.5 * (0.25 + 0.75 * len(words) / mean)) if times else 0


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 35))
def test_the_best_places_are_those_of_a_stable_sort(scores, depth):
    found = best_places(np.array(scores, np.float32), depth)
    assert found.tolist() == sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:depth]


@given(st.sets(st.text(max_size=4).filter(lambda word: word.isprintable()), max_size=30), st.text(max_size=4))
def test_words_are_found_by_their_row_and_others_are_not(tmp_path_factory, words, other):
    folder = tmp_path_factory.mktemp("words")
    Words.write(folder, sorted(words))
    kept = Words(folder)
    assert [word.decode() for word in kept] == sorted(words) and len(kept) == len(words)
    assert [kept.row(word) for word in sorted(words)] == list(range(len(words)))
    assert other in words or not other.isprintable() or kept.row(other) is None


def test_memory_grows_with_a_shard_and_not_with_the_corpus(open_index, monkeypatch):
    monkeypatch.setattr(corpora, "ROWS_PER_BATCH", 100)
    monkeypatch.setattr(repeated_ids, "HASHES", 500)

    def peak(count):
        texts = random_texts(count)
        tracemalloc.start()
        index = open_index(texts, 500)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(index._shards) == count // 500
        return size

    peak(500)  # what is loaded once
    assert peak(4000) < 1.3 * peak(1000)
