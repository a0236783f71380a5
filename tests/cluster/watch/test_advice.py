"""What a run is told of its own figures."""

import pytest

from cluster.watch.advice import Advice


def told(rows: list[dict[str, object]], compares: bool = True) -> list[str]:
    events: list[str] = []
    advice = Advice(compares, events.append)
    for step, row in enumerate(rows, 1):
        advice.step({"step": step, "stage": "rl", "zero_variance": 0.5, "seconds_step": 1.0, "restarts": 0} | row)
    return events


def test_five_steps_of_equal_rewards_are_told_once() -> None:
    equal: dict[str, object] = {"zero_variance": 1.0}
    assert told([equal] * 4 + [{}] + [equal] * 4) == []
    [event] = told([equal] * 12)
    assert event.startswith("in all groups of 5 steps all rewards were equal, so nothing is learnt; look at")
    [event] = told([equal] * 5, compares=False)
    assert event.startswith("in all groups of 5 steps all rewards were equal; look at")


def test_a_step_of_many_times_the_usual_is_told_once() -> None:
    usual: list[dict[str, object]] = [{"seconds_step": seconds} for seconds in (2.0, 1.0, 2.0, 3.0, 2.0)]
    assert told([*usual, {"seconds_step": 10.0}]) == []
    [event] = told([*usual, {"seconds_step": 10.1}, {"seconds_step": 90.0}])
    assert event.startswith("step 6 took 10.1 s, 5 times the usual 2 s; other work")


@pytest.mark.parametrize(
    "row",
    [{"seconds_step": 90.0, "restarts": 1}, {"seconds_step": 90.0, "stage": "supervised"}],
    ids=["an actor was replaced", "another stage has begun"],
)
def test_a_slow_step_with_a_cause_of_its_own_is_not_told(row: dict[str, object]) -> None:
    assert told([{}] * 6 + [row]) == []
