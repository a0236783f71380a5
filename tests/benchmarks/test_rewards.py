import numpy as np
import pytest

from benchmarks.rewards import SIZE, by_libraries, by_scorer, distinct, sampled


@pytest.mark.parametrize("groups", [sampled, distinct])
def test_the_libraries_own_objects_give_our_scores(groups):
    scored = groups(20)
    for theirs, ours in zip(by_libraries(scored), by_scorer(scored), strict=True):
        assert all(np.array_equal(theirs[part], ours[part]) for part in theirs)


def test_the_two_kinds_of_groups_differ_in_how_many_responses_are_equal():
    assert all(len({r.text for r in group.responses}) == SIZE for group in distinct(20))
    assert all(len({r.text for r in group.responses}) <= 5 for group in sampled(20))  # the demo's wordings of one detail
