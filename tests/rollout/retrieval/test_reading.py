import json

import pytest

from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus, with_absent_gold
from rollout.retrieval.open import LEXICAL
from rollout.retrieval.reading import Reading, Readings, comparable
from rollout.retrieval.retriever import Retriever
from rollout.retrieval.source import LocalSource
from rollout.text import ENGLISH
from rollout.types import Passage, Prompt

OWN = Passage(id="own", title="", text="brought along")


def asked(id: str, question: str = "?", gold: tuple[str, ...] = (), passages: tuple[Passage, ...] | None = None) -> Prompt:
    return Prompt(id=id, question=question, answers=("a",), gold=gold, passages=passages)


@pytest.fixture
def readings(tmp_path):
    rows = [{"id": f"p{i}", "title": "", "text": f"word{i} word{i + 1}"} for i in range(9)]
    rows.append({"id": "p3", "title": "", "text": "the id stands twice"})
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = Corpus.open(tmp_path / "passages.jsonl", tmp_path / "cache")
    return Readings(
        corpus, Retriever(len(corpus), LocalSource(corpus, "all", LEXICAL, Bm25(corpus, ENGLISH))), n_context=3, seed=1
    )


def ids(readings: Readings, reading: Reading, *prompts: Prompt) -> list[list[str]]:
    return [[passage.id for passage in prompt.passages or ()] for prompt in readings.of(prompts, reading)]


def test_nothing_is_read_gold_is_read_as_named_and_lexical_is_what_bm25_ranks(readings):
    first, second = asked("q1", "word2 word2 word5", gold=("p7", "p3")), asked("q2", "unheard", gold=("p0",))
    assert ids(readings, "none", first, second) == [[], []]
    assert ids(readings, "gold", first, second) == [["p7", "p3"], ["p0"]]
    assert readings.of([first], "gold")[0].passages[1].text == "word3 word4"
    [found, nothing] = ids(readings, "lexical", first, second)
    assert sorted(found) == ["p1", "p2", "p4", "p5"] and nothing == []


def test_random_passages_are_different_and_a_function_of_seed_and_prompt_alone(readings):
    prompts = [asked(f"q{i}") for i in range(200)]
    drawn = readings.of(prompts, "random")
    assert drawn == readings.of(prompts[::-1], "random")[::-1]
    assert all(len({passage.text for passage in prompt.passages}) == 3 for prompt in drawn)
    read = [passage.text for prompt in drawn for passage in prompt.passages]
    assert all(40 <= read.count(text) <= 85 for text in set(read)) and len(set(read)) == 10  # 60 each


def test_gold_that_no_passage_has_is_not_read(readings):
    [marked] = with_absent_gold([asked("q", gold=("gone", "p1"))], readings.corpus)
    assert ids(readings, "gold", marked) == [["p1"]]


def test_readings_are_compared_on_searched_prompts_with_gold_or_on_all_searched_where_none_has(readings):
    own, with_gold, without = asked("own", passages=(OWN,)), asked("gold", gold=("p1",)), asked("bare")
    [lacking] = with_absent_gold([asked("lacking", gold=("gone",))], readings.corpus)
    assert comparable([own, with_gold, without, lacking]) == [with_gold]
    assert comparable([own, without, lacking]) == [without, lacking]
    assert comparable([own]) == []
