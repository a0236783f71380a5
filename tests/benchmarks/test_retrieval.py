import json
from argparse import Namespace

import numpy as np
import pytest

from benchmarks import retrieval_vectors
from benchmarks.recall import Way, World
from rollout.config import DataSettings
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.dense import Dense
from rollout.retrieval.open import open_index
from rollout.retrieval.settings import RetrieverSettings
from rollout.types import Prompt

TEXTS = ["a zebra ran", "a violin played", "a lantern shone"]


@pytest.fixture
def world(tmp_path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"id": f"p{i}", "text": t}) + "\n" for i, t in enumerate(TEXTS)))
    data = DataSettings(passages=tmp_path / "p.jsonl", cache=tmp_path / "cache", language="en")
    corpus = Corpus.open(tmp_path / "p.jsonl", tmp_path / "cache")
    dense = Dense(retrieval_vectors.Given(np.eye(3, dtype=np.float32), ["zebra", "violin", "lantern"]), 3)
    dense.load([np.roll(np.eye(3, dtype=np.float32), 1, axis=0)], "turned by one")
    return World(corpus, open_index(corpus, data), dense, RetrieverSettings(path="given", scale=1.0))


def prompts(*golds):
    words = ("zebra", "violin", "lantern")
    return [Prompt(id=w, question=w, answers=("x",), gold=gold) for w, gold in zip(words, golds, strict=True)]


def test_recall_counts_the_examples_of_which_a_gold_passage_is_among_the_first(world):
    asked = prompts(("p0", "p2"), ("p1",), ("p0",))
    assert world.recall(Way("all", None), asked) == [pytest.approx(200 / 3)] * 3
    assert world.recall(Way(None, "all"), asked) == [pytest.approx(100 / 3), 100, 100]


def test_the_weight_of_a_hybrid_is_the_best_on_the_part_of_train(world):
    def chosen(part):
        [*_, hybrid] = world.ways(["all"], part)
        return hybrid.weight, world.recall(hybrid, part)[0]

    # the word has ln(1 + 2.5 / 1.5) / (1 + 1.5) = .39: only a weight of 3 raises it above 1, the other passage's product
    assert chosen(prompts(("p0",), ("p1",), ("p2",))) == (3.0, 100)
    assert chosen(prompts(("p1",), ("p2",), ("p0",))) == (0.25, 100)


@pytest.mark.integration
def test_ours_finds_what_a_mixture_of_the_peers_results_finds(tmp_path):
    options = Namespace(size=2000, width=16, queries=4, repetitions=1)
    hybrid, top_k = (part(options, tmp_path) for part in (retrieval_vectors.hybrid, retrieval_vectors.top_k))
    assert hybrid["hybrid_recall"] == 1 and top_k["recall"] == 1
