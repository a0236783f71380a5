import json

import numpy as np
import pytest

from rollout.config import DataSettings
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import Hit
from rollout.retrieval.open import open_retriever
from rollout.retrieval.retriever import Retriever
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource
from rollout.types import PartRanking, Prompt
from tests.rollout.retrieval.encoders import bare_bert

LEXICAL = [0.0, 3.0, 1.0, 0.0, 2.0]
DENSE = [0.5, -0.25, 0.25, 1.0, 0.75]


class Told:
    """An index that gives every query the same scores, and remembers the queries."""

    def __init__(self, scores):
        self._scores, self.asked = np.array(scores, np.float32), []

    @property
    def size(self):
        return len(self._scores)

    def search(self, queries, depth):
        self.asked += queries
        order = [i for i in np.argsort(-self._scores, kind="stable").tolist() if self._scores[i] != 0]
        return [[Hit(i, float(self._scores[i])) for i in order[:depth]] for _ in queries]

    def scores(self, queries, positions):
        return [self._scores[list(own)] for own in positions]


@pytest.fixture
def corpus(tmp_path):
    rows = [{"id": f"p{i}", "text": f"text {i}"} for i in range(5)]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Corpus.open(tmp_path / "passages.jsonl", tmp_path / "cache")


def found(corpus, n_context, **settings):
    source = LocalSource(corpus, "all", RetrieverSettings(mode="hybrid", **settings), Told(LEXICAL), Told(DENSE))
    [retrieval] = source.find(["a question"], n_context)
    return retrieval


def test_a_hybrid_adds_up_both_scores_of_what_either_puts_forward(corpus):
    retrieval = found(corpus, 2, candidates=2, lexical=2, scale=4.0, lexical_weight=0.5)
    # pool: 3 and 4 by vectors, 1 and 4 by words; 4 * dense + .5 * lexical: p1 .5, p3 4, p4 4
    assert [passage.id for passage in retrieval.passages] == ["p3", "p4"] and retrieval.scores == (4.0, 4.0)
    assert retrieval.ranking == ("p3", "p4", "p1")
    assert retrieval.parts == {
        "lexical": PartRanking(scores=(0.0, 2.0), ranking=("p1", "p4", "p2")),
        "dense": PartRanking(scores=(1.0, 0.75), ranking=("p3", "p4", "p0", "p2", "p1")),
    }


def test_with_one_weight_at_zero_the_other_score_orders(corpus):
    assert found(corpus, 3, scale=0.0).ranking == ("p1", "p4", "p2", "p0", "p3")
    assert found(corpus, 3, lexical_weight=0.0).ranking == ("p3", "p4", "p0", "p2", "p1")


def test_as_many_candidates_are_compared_as_are_read(corpus):
    assert len(found(corpus, 4, candidates=1, lexical=0).passages) == 4


def test_the_scale_is_lower_where_nothing_was_pretrained(corpus):
    assert found(corpus, 1).scores == (2 * 0.75 + 2.0,)
    assert found(corpus, 1, path="somewhere").scores == (20 * 1.0,)


def test_each_index_is_asked_its_own_part_of_the_question(corpus):
    question = "persona: i bake. context:  Q: what is new ?"
    for settings, meant in (({}, "what is new ?"), ({"query": "persona"}, "i bake.")):
        lexical, dense = Told(LEXICAL), Told(DENSE)
        LocalSource(corpus, "last_turn", RetrieverSettings(mode="hybrid", **settings), lexical, dense).find([question], 1)
        assert (lexical.asked, dense.asked) == (["what is new ?"], [meant])


def test_no_question_asks_no_index(corpus):
    lexical = Told(LEXICAL)
    own = Prompt(id="q", question="q", answers=("a",), passages=())
    assert Retriever(1, LocalSource(corpus, "all", RetrieverSettings(), lexical)).retrieve([own])[0].passages == ()
    assert lexical.asked == []


def test_a_path_makes_a_hybrid_of_bm25_and_its_encoder(tmp_path):
    rows = [{"id": word, "text": f"my friend saw a {word} ."} for word in ("zebra", "violin", "lantern")]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSettings(passages=tmp_path / "passages.jsonl", cache=tmp_path / "cache", language="en", query="all")
    settings = RetrieverSettings(path=str(bare_bert(tmp_path / "bert")))
    prompts = [Prompt(id=word, question=f"a {word}", answers=("x",)) for word in ("violin", "lantern")]
    found = open_retriever(data, 2, settings).retrieve(prompts)
    assert [each.parts["lexical"].ranking for each in found] == [("violin",), ("lantern",)]
    for each in found:
        scores = zip(each.parts["dense"].scores, each.parts["lexical"].scores, strict=True)
        assert each.scores == tuple(20.0 * dense + lexical for dense, lexical in scores)
        assert set(each.parts["dense"].ranking) == {"zebra", "violin", "lantern"}
    alone = [open_retriever(data, 2, settings).retrieve([prompt])[0] for prompt in prompts]
    assert alone == found
