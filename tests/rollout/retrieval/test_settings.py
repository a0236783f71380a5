import pytest
from pydantic import ValidationError

from rollout.retrieval.settings import RetrieverSettings


def test_words_are_searched_until_a_path_is_given():
    assert RetrieverSettings().used_mode == "lexical"
    assert RetrieverSettings(path="x").used_mode == "hybrid"
    assert RetrieverSettings(path="x", mode="dense").used_mode == "dense"


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"scale": -1}, {"mode": "words"}, {"dtype": "int8"}, {"query": "title"}])
def test_values_beyond_their_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        RetrieverSettings(**wrong)
