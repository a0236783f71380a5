import asyncio
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from reward.config import ExtraReward, RewardSettings
from reward.extra import LoadedReward, import_reward
from reward.scorer import Scorer
from rollout.errors import RewardError
from tests.reward.groups import make_group

GROUPS = [
    replace(group, prompt=replace(group.prompt, id=id))
    for id, group in {
        "q1": make_group(["no", "maybe"], ("yes",)),
        "q2": make_group(["yes"], ("yes",)),
        "q3": make_group(["never", "", "perhaps"], ("no",)),
    }.items()
]
LENGTHS = [[2, 5], [3], [5, 0, 7]]


@pytest.fixture
def extra_of(monkeypatch):
    """Makes the settings of an extra reward that is the given function or class."""

    def make(own, **values):
        module = types.ModuleType("own_rewards")
        module.own = own
        monkeypatch.setitem(sys.modules, "own_rewards", module)
        return ExtraReward(function="own_rewards:own", **values)

    return make


@pytest.fixture
def measured(extra_of):
    """The values for GROUPS."""
    return lambda own, **values: [row.tolist() for row in LoadedReward(extra_of(own, **values)).measure(GROUPS)]


@pytest.fixture
def problem(extra_of):
    def raised(own, groups=GROUPS, **values):
        with pytest.raises(RewardError) as caught:
            LoadedReward(extra_of(own, **values)).measure(groups)
        assert "\n" not in str(caught.value)
        return caught.value

    return raised


def lengths(prompt, passages, responses):
    return [len(text) for text in responses]


def lengths_of_all(prompts, passages, responses):
    assert [prompt.id for prompt in prompts] == ["q1", "q2", "q3"] and passages == [(), (), ()]
    return [[len(text) for text in own] for own in responses]


async def lengths_later(prompt, passages, responses):
    await asyncio.sleep(0)
    return lengths(prompt, passages, responses)


def test_a_function_gets_its_args_by_name(measured):
    def own(prompt, passages, responses, *, limit, scale=1):
        return [scale * min(len(text), limit) for text in responses]

    assert measured(own, args={"limit": 3}) == [[2, 3], [3], [3, 0, 3]]
    assert measured(own, args={"limit": 3, "scale": 0.5}) == [[1, 1.5], [1.5], [1.5, 0, 1.5]]


def test_a_class_is_made_once_with_its_args_and_its_instance_is_called(measured):
    made = []

    class AtMost:
        def __init__(self, limit):
            made.append(limit)
            self.limit = limit

        def __call__(self, prompt, passages, responses):
            return [min(len(text), self.limit) for text in responses]

    assert measured(AtMost, args={"limit": 4}) == [[2, 4], [3], [4, 0, 4]]
    assert made == [4]


def test_an_object_of_a_module_is_called_as_it_is(measured):
    class AtMost:
        def __call__(self, prompt, passages, responses, limit=4):
            return [min(len(text), limit) for text in responses]

    assert measured(AtMost()) == [[2, 4], [3], [4, 0, 4]]


class Late:
    async def __call__(self, prompt, passages, responses):
        return await lengths_later(prompt, passages, responses)


async def lengths_of_all_later(prompts, passages, responses):
    await asyncio.sleep(0)
    return lengths_of_all(prompts, passages, responses)


@pytest.mark.parametrize(
    ("own", "values"),
    [
        (lengths, {}),
        (lengths_of_all, {"batch": True}),
        (lengths_later, {}),
        (lengths_later, {"concurrency": 1}),
        (Late, {}),
        (lengths_of_all_later, {"batch": True}),
    ],
)
def test_every_manner_of_calling_yields_the_same_values(own, values, measured):
    assert measured(own, **values) == LENGTHS


def test_a_batch_is_one_call(measured):
    calls = []
    measured(lambda *given: calls.append(given) or lengths_of_all(*given), batch=True)
    (((_, _, texts),)) = calls
    assert texts == [["no", "maybe"], ["yes"], ["never", "", "perhaps"]]


def test_a_batch_may_be_of_arrays_and_leave_responses_out(measured):
    def own(prompts, passages, responses):
        return (np.array([1.0, 2.0], np.float32), [None], (None, 3, 4))

    np.testing.assert_equal(measured(own, batch=True), [[1, 2], [np.nan], [np.nan, 3, 4]])


def test_as_many_calls_are_awaited_at_a_time_as_the_limit_says(extra_of):
    running, peaks, barrier = set(), [], asyncio.Barrier(2)

    async def own(prompt, passages, responses):
        running.add(prompt.id)
        peaks.append(len(running))
        await barrier.wait()  # until a second call is under way
        running.remove(prompt.id)
        return lengths(prompt, passages, responses)

    groups = [replace(GROUPS[0], prompt=replace(GROUPS[0].prompt, id=str(i))) for i in range(6)]
    values = LoadedReward(extra_of(own, concurrency=2)).measure(groups)
    assert [row.tolist() for row in values] == [[2, 5]] * 6
    assert max(peaks) == 2 and len(peaks) == 6


def test_what_is_kept_open_between_calls_meets_the_same_loop(extra_of):
    loops = []

    async def own(prompt, passages, responses):
        loops.append(asyncio.get_running_loop())
        return lengths(prompt, passages, responses)

    loaded = LoadedReward(extra_of(own))
    loaded.measure(GROUPS)
    loaded.measure(GROUPS)
    assert len(loops) == 6 and len(set(loops)) == 1


def test_threads_may_take_turns_in_measuring(extra_of):
    loaded = LoadedReward(extra_of(lengths_later))
    for _ in range(2):
        with ThreadPoolExecutor(1) as thread:
            assert [row.tolist() for row in thread.submit(loaded.measure, GROUPS).result()] == LENGTHS


def test_a_plain_function_may_run_a_loop_of_its_own_beside_awaited_ones(monkeypatch):
    module = types.ModuleType("own_rewards")
    module.runs_a_loop = lambda *given: asyncio.run(lengths_later(*given))
    module.awaited = lengths_later
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    extra = tuple(ExtraReward(function=f"own_rewards:{name}") for name in ("awaited", "runs_a_loop"))
    scorer = Scorer(RewardSettings(extra=extra))
    for _ in range(2):
        for group, expected in zip(scorer.score_all(GROUPS), LENGTHS, strict=True):
            assert group.reward_parts["extra/runs_a_loop"].tolist() == expected
            assert group.reward_parts["extra/awaited"].tolist() == expected


def test_every_function_sees_the_examples_other_columns(extra_of):
    def own(prompt, passages, responses):
        return [abs(len(text) - prompt.extra["length"]) for text in responses]

    groups = [replace(group, prompt=replace(group.prompt, extra={"length": i})) for i, group in enumerate(GROUPS)]
    assert [row.tolist() for row in LoadedReward(extra_of(own)).measure(groups)] == [[2, 5], [2], [3, 2, 5]]


@pytest.mark.parametrize("error", [KeyError("no such\nkey"), SystemExit("no such\nkey"), asyncio.CancelledError("no such key")])
@pytest.mark.parametrize("values", [{}, {"batch": True}])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_user_raises_is_the_cause_of_one_line(error, values, is_async, problem):
    def plain(prompt, passages, responses):
        raise error

    async def later(prompt, passages, responses):
        await asyncio.sleep(0)
        raise error

    raised = problem(later if is_async else plain, **values)
    place = "prompts 'q1' to 'q3' (3)" if values else "prompt 'q1'"
    assert f"'own_rewards:own' on {place} raised {type(error).__name__}: " in str(raised)
    assert "no such" in str(raised) and str(raised).endswith("mend the function or remove it")
    assert raised.__cause__ is error


def test_of_several_awaited_errors_the_first_prompts_is_told_and_no_call_is_left_behind(extra_of):
    ended = []

    async def own(prompt, passages, responses):
        for _ in range({"q1": 1, "q2": 2, "q3": 0}[prompt.id]):
            await asyncio.sleep(0)
        ended.append(prompt.id)
        if prompt.id != "q1":
            raise ValueError(prompt.id)
        return lengths(prompt, passages, responses)

    with pytest.raises(RewardError, match="on prompt 'q2' raised"):
        LoadedReward(extra_of(own)).measure(GROUPS)
    assert ended == ["q3", "q1", "q2"]


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ([[1, 2], [3]], "on prompts 'q1' to 'q3' (3) returned 2 values: return a list with one list per prompt, here 3, of"),
        (None, "on prompts 'q1' to 'q3' (3) returned None: return a list with one list per prompt"),
        ([[1, 2], [3, 4], [5, 6, 7]], "on prompt 'q2' returned 2 values: return a list with one number (or None)"),
        ([[1, 2], 3, [5, 6, 7]], "on prompt 'q2' returned 3: return a list with one number"),
        ([[1, 2], [3], [5, "6", 7]], "on prompt 'q3' returned '6' among its values: return a list with one number"),
    ],
)
def test_a_batch_of_another_shape_is_told_with_its_remedy(returned, shown, problem):
    assert shown in str(problem(lambda *given: returned, batch=True))


def test_a_batch_of_one_names_its_prompt(problem):
    assert "on prompt 'q3' returned None" in str(problem(lambda *given: None, GROUPS[2:], batch=True))


class NeedsLimit:
    def __init__(self, limit): ...

    def __call__(self, prompt, passages, responses): ...


class TakesLess:
    def __call__(self, prompt, responses): ...


class NoReward:
    """Its instances cannot be called."""


def with_limit(prompt, passages, responses, limit): ...


@pytest.mark.parametrize(
    ("own", "args", "shown"),
    [
        (
            with_limit,
            {"limt": 3},
            "with (prompt, passages, responses, limt=…) (missing a required argument: 'limit'): mend its args",
        ),
        (
            lengths,
            {"limit": 3},
            "(got an unexpected keyword argument 'limit'): mend its args or its parameters",
        ),
        (lengths, {"prompt": 3}, "(multiple values for argument 'prompt'): mend its args"),
        (lambda prompt, responses: [], {}, "with (prompt, passages, responses) (too many positional arguments): mend its args"),
        (
            NeedsLimit,
            {},
            "with () (missing a required argument: 'limit'): mend its args or its parameters, which are (limit)",
        ),
        (TakesLess, {}, "with (self, prompt, passages, responses) (too many positional arguments)"),
        (NoReward, {}, "is a class without __call__: define __call__(self, prompt, passages, responses)"),
    ],
)
def test_arguments_that_do_not_suit_are_told_before_anything_is_made(own, args, shown, extra_of):
    with pytest.raises(RewardError) as caught:
        import_reward(extra_of(own, args=args))
    message = str(caught.value)
    assert message.startswith("reward.extra: 'own_rewards:own' ") and shown in message and "\n" not in message


def test_a_class_that_cannot_be_made_is_told_with_its_cause(extra_of):
    error = OSError("no such\nmodel")

    class Judge:
        def __init__(self, path):
            raise error

        def __call__(self, prompt, passages, responses): ...

    extra = extra_of(Judge, args={"path": "x"})
    import_reward(extra)  # which makes nothing
    with pytest.raises(RewardError) as caught:
        LoadedReward(extra)
    assert str(caught.value) == (
        "reward.extra: 'own_rewards:own' cannot be made (OSError: no such model): mend the class or its args"
    )
    assert caught.value.__cause__ is error
