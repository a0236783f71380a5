import pickle
import sys
import types

import numpy as np
import pytest

from reward.config import ExtraReward, RewardSettings
from reward.metrics import TextMetrics
from reward.scorer import Scorer, reward_range
from rollout.errors import RewardError
from rollout.text import ENGLISH
from tests.reward.groups import make_group

ANSWER = "i am good ."
METRICS = TextMetrics(ENGLISH)
f1, raw_f1, rouge_l, bleu = METRICS.f1, METRICS.raw_f1, METRICS.rouge_l, METRICS.bleu


@pytest.fixture
def scorer_with(monkeypatch):
    """Makes a Scorer whose extra reward, of weight 0.5, is the given function."""

    def make(function, **weights):
        module = types.ModuleType("own_rewards")
        module.own = function
        monkeypatch.setitem(sys.modules, "own_rewards", module)
        return Scorer(RewardSettings(extra=(ExtraReward(function="own_rewards:own", weight=0.5),), **weights))

    return make


def test_sum_mode_adds_weighted_parts():
    texts = ["i am good", "i i i i i", ""]
    group = Scorer(RewardSettings(f1=2, rouge=0.5, bleu=3)).score(make_group(texts, (ANSWER,)))
    expected = [2 * f1(t, ANSWER) + 0.5 * rouge_l(t, ANSWER) + 3 * bleu(t, ANSWER) for t in texts]
    np.testing.assert_allclose(group.rewards, expected, rtol=1e-6)
    np.testing.assert_allclose(group.reward_parts["f1"], [1, 0.25, 0], rtol=1e-6)
    assert group.rewards[2] == 0
    assert list(group.reward_parts) == ["f1", "rougeL", "bleu"]
    assert {group.rewards.dtype, *(part.dtype for part in group.reward_parts.values())} == {np.dtype(np.float32)}
    assert group.rewards.shape == (3,)


def test_scoring_leaves_the_rest_of_the_group_alone():
    group = make_group(["yes"], (ANSWER,))
    scored = Scorer(RewardSettings()).score(group)
    assert group.rewards is None and group.reward_parts == {}
    assert (scored.prompt, scored.responses, scored.version) == (group.prompt, group.responses, group.version)


def test_each_metric_takes_its_own_best_answer():
    # F1 is best against the first answer, where all words stand in another order, ROUGE-L and BLEU against the second.
    text, answers = "a1 b1 c1 d1", ("d1 c1 b1 a1", "a1 b1 c1 x1 y1 z1")
    group = Scorer(RewardSettings()).score(make_group([text], answers))
    assert group.reward_parts["f1"][0] == 1 == np.float32(f1(text, answers[0]))
    assert group.reward_parts["rougeL"][0] == np.float32(0.6) == np.float32(rouge_l(text, answers[1]))
    assert group.reward_parts["bleu"][0] == np.float32(bleu(text, answers[1])) > bleu(text, answers[0])
    np.testing.assert_allclose(group.rewards[0], 1 + 0.6 + bleu(text, answers[1]), rtol=1e-6)


def test_lapdog_mode_divides_bleu_by_its_norm_over_the_group():
    texts = ["yes", "no", "yes"]  # BLEU 1, 0, 1: divided by sqrt(2)
    group = Scorer(RewardSettings(mode="lapdog", bleu=2)).score(make_group(texts, ("yes",)))
    np.testing.assert_allclose(group.rewards, [2 + 2 / np.sqrt(2), 0, 2 + 2 / np.sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose(group.reward_parts["bleu"], [1, 0, 1], rtol=1e-6)


def test_lapdog_mode_counts_punctuation_and_case():
    group = Scorer(RewardSettings(mode="lapdog", rouge=0, bleu=0)).score(make_group([".", "I am Good ."], (ANSWER,)))
    np.testing.assert_allclose(group.rewards, [0.4, 0.5], rtol=1e-6)
    assert raw_f1(".", ANSWER) == pytest.approx(0.4)


def test_lapdog_mode_survives_a_group_without_any_bleu():
    group = Scorer(RewardSettings(mode="lapdog")).score(make_group(["no", "", "never"], ("yes",)))
    assert group.rewards.tolist() == [0, 0, 0]


def test_equal_texts_are_measured_once(monkeypatch):
    seen = []
    monkeypatch.setattr(TextMetrics, "bleu", lambda self, text, reference: seen.append(text) or 0.25)
    group = Scorer(RewardSettings(f1=0, rouge=0)).score(make_group(["a1", "b1", "a1", "a1"], ("x1", "y1")))
    assert seen == ["a1", "a1", "b1", "b1"]  # two answers each
    assert group.rewards.tolist() == [0.25] * 4


def test_extra_reward_is_weighted_and_added(scorer_with):
    def own(prompt, passages, responses):
        assert (prompt.id, passages) == ("q17", ())
        return [len(text) for text in responses]

    group = scorer_with(own).score(make_group(["no", "maybe", "no"], ("yes",)))
    plain = Scorer(RewardSettings()).score(make_group(["no", "maybe", "no"], ("yes",)))
    np.testing.assert_allclose(group.rewards, plain.rewards + [1, 2.5, 1], rtol=1e-6)
    assert group.reward_parts["extra/own"].tolist() == [2, 5, 2]


@pytest.mark.parametrize(
    "values", [np.array([0.5, 1.0], np.float32), (1, 2), [True, False], [np.float16(1), np.int64(2)], [np.bool_(1), 0]]
)
def test_extra_reward_may_return_any_row_of_numbers(scorer_with, values):
    group = scorer_with(lambda prompt, passages, responses: values).score(make_group(["no", "yes"], ("yes",)))
    assert group.reward_parts["extra/own"].tolist() == [float(value) for value in values]


def test_a_reward_that_does_not_apply_is_left_out_of_the_sum(scorer_with):
    group = scorer_with(lambda prompt, passages, responses: [None, 2.0]).score(make_group(["yes", "no"], ("yes",)))
    assert group.rewards.tolist() == [3.0, 1.0]  # F1, ROUGE-L and BLEU of "yes"; half of 2
    assert np.isnan(group.reward_parts["extra/own"][0]) and group.reward_parts["extra/own"][1] == 2


def test_a_response_that_no_reward_applies_to_has_none(scorer_with):
    scorer = scorer_with(lambda prompt, passages, responses: [None, 2.0, 4.0], f1=0, rouge=0, bleu=0)
    group = scorer.score(make_group(["yes", "no", "no"], ("yes",)))
    assert np.isnan(group.rewards[0]) and group.rewards[1:].tolist() == [1.0, 2.0]
    assert reward_range(group) == 1.0


@pytest.mark.parametrize(("values", "expected"), [([None, None], 0), ([None, 3], 0), ([1, 3], 1)])
def test_the_spread_is_that_of_the_rewards_that_apply(scorer_with, values, expected):
    scorer = scorer_with(lambda prompt, passages, responses: values, f1=0, rouge=0, bleu=0)
    assert reward_range(scorer.score(make_group(["yes", "no"], ("yes",)))) == expected


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0], "1 values"),
        ([1.0, float("nan")], "nan"),
        ([float("-inf"), 1.0], "-inf"),
        ([1e39, 1.0], "1e+39"),
        ([10**400, 1.0], "1000"),
        ([1.0, "0.5"], "'0.5'"),
        (np.zeros((2, 1)), "[0.0]"),
        (np.float64(1), "1.0"),
        (None, "None"),
        ([None], "1 values"),
        ({"a": 1, "b": 2}, "'a': 1"),
    ],
)
def test_bad_extra_values_name_function_prompt_value_and_remedy(scorer_with, values, shown):
    with pytest.raises(RewardError) as caught:
        scorer_with(lambda prompt, passages, responses: values).score(make_group(["no", "yes"], ("yes",)))
    message = str(caught.value)
    assert all(part in message for part in ("'own_rewards:own'", "'q17'", shown, "here 2, each finite"))
    assert "\n" not in message


@pytest.mark.parametrize("error", [KeyError("no such\nkey"), SystemExit("no such\nkey")])
def test_exception_in_an_extra_reward_is_told_in_one_line_that_survives_pickling(error, scorer_with):
    def own(prompt, passages, responses):
        raise error

    with pytest.raises(RewardError) as caught:
        scorer_with(own).score(make_group(["yes"], ("yes",)))
    message = str(caught.value)
    assert all(part in message for part in ("'own_rewards:own'", "'q17'", type(error).__name__, "no such", "mend the function"))
    assert "\n" not in message
    assert caught.value.__cause__ is error
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is RewardError and str(copy) == message


@pytest.mark.parametrize(
    ("name", "shown"), [("no_such_module:f", "no_such_module"), ("math:no_such", "no_such"), ("math:pi", "is a float")]
)
def test_extra_reward_that_cannot_be_imported_is_refused_at_once(name, shown):
    with pytest.raises(RewardError) as caught:
        Scorer(RewardSettings(extra=(ExtraReward(function=name),)))
    assert all(part in str(caught.value) for part in ("reward.extra", repr(name), shown))
