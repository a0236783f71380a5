import pytest
from pydantic import ValidationError

from rollout.retrieval.settings import RetrieverSettings


def idle(**settings):
    return [problem for problem, _ in RetrieverSettings(**settings).without_effect()]


def test_words_are_searched_until_a_path_is_given():
    assert RetrieverSettings().used_mode == "lexical"
    assert RetrieverSettings(path="x").used_mode == "hybrid"
    assert RetrieverSettings(path="x", mode="dense").used_mode == "dense"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"mode": "hybrid", "scale": 1.0, "candidates": 4, "dtype": "float16"}, []),
        ({"path": "x", "lexical_weight": 0.5, "normalize": True}, []),
        ({"mode": "lexical", "path": "x"}, ["path: x has no effect with retriever.mode lexical"]),
        ({"max_tokens": 9}, ["max_tokens: 9 has no effect with retriever.mode lexical"]),
        ({"candidates": 9}, ["candidates: 9 has no effect with retriever.mode lexical"]),
        ({"mode": "dense", "scale": 1.0}, ["scale: 1.0 has no effect with retriever.mode dense"]),
        ({"mode": "dense", "query": "all"}, []),
    ],
)
def test_a_setting_that_nothing_reads_is_told(settings, told):
    assert idle(**settings) == told


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"scale": -1}, {"mode": "words"}, {"dtype": "int8"}, {"query": "title"}])
def test_values_beyond_their_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        RetrieverSettings(**wrong)
