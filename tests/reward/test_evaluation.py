import json
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from reward.config import RewardSettings
from reward.evaluation import evaluate
from reward.scorer import MetricScorer, Scorer
from rollout.types import Group, PartRanking, Passage, Retrieval
from tests.reward.groups import make_group

KEYS = """examples reward f1 rouge1 rouge2 rougeL bleu exact_match distinct1 distinct2 unique_replies mean_words
recall@1 recall@5 recall@20 intervals constant_reply""".split()

GROUPS = [
    make_group(["a1 b1 c1 d1"], ("d1 c1 b1 a1", "a1 b1 c1 x1 y1 z1"), gold=("p3",), ranking=("p1", "p2", "p3")),
    make_group(["i am good"], ("I am good!",), gold=("p9", "p1"), ranking=("p1", "p2")),
    make_group(["i am good"], ("the dog runs in the park",), gold=("p8",), ranking=tuple(f"r{i}" for i in range(20)) + ("p8",)),
    make_group([""], ("yes",)),
]
STREAMS = [["d1 c1 b1 a1", "I am good!", "the dog runs in the park", "yes"], ["a1 b1 c1 x1 y1 z1", None, None, None]]


def evaluated(groups: list[Group], constant_reply: str | None, settings: RewardSettings | None = None) -> dict[str, Any]:
    settings = settings or RewardSettings()
    return evaluate(Scorer(settings).score_all(groups), constant_reply, MetricScorer(settings)).figures


def test_figures_of_a_worked_example():
    result = evaluated(GROUPS, "i am good", RewardSettings(bleu=0))
    assert list(result) == KEYS
    assert result["examples"] == 4
    assert result["f1"] == pytest.approx(100 * (1 + 1 + 0 + 0) / 4)
    assert result["rouge1"] == pytest.approx(100 * (1 + 1) / 4)
    assert result["rouge2"] == pytest.approx(100 * (2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5) + 1) / 4)
    assert result["rougeL"] == pytest.approx(100 * (0.6 + 1) / 4)
    assert result["reward"] == pytest.approx((1 + 0.6 + 1 + 1) / 4)
    assert result["exact_match"] == 25
    assert result["distinct1"] == pytest.approx(100 * 7 / 10)
    assert result["distinct2"] == pytest.approx(100 * 5 / 7)
    assert result["unique_replies"] == 75
    assert result["mean_words"] == 2.5
    assert result["recall@1"] == pytest.approx(100 / 3)
    assert result["recall@5"] == result["recall@20"] == pytest.approx(200 / 3)


def test_what_can_be_drawn_again_by_examples_has_an_interval():
    result = evaluated(GROUPS, None)
    without = {"examples", "distinct1", "distinct2", "unique_replies", "intervals", "constant_reply"}
    assert set(result["intervals"]) == set(KEYS) - without
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high, name
    assert result["intervals"]["f1"] == [0, 100] and result["intervals"]["mean_words"][1] == 4 - 1 / 4


def test_draws_are_measured_in_their_mean_and_in_each_figures_best():
    greedy = [make_group(["i am good"], ("i am good",)), make_group(["no"], ("yes",))]
    draws = [["i am good", "i am bad"], ["no", "yes"]]
    drawn = [make_group(texts, group.prompt.answers) for texts, group in zip(draws, greedy, strict=True)]
    for mode in ("sum", "lapdog"):
        settings = RewardSettings(mode=mode, bleu=2)
        scorer = Scorer(settings)
        alone = [
            [scorer.score(make_group([text], own.prompt.answers)).rewards[0] for text in texts]
            for texts, own in zip(draws, drawn, strict=True)
        ]
        found = evaluate(scorer.score_all(greedy), None, MetricScorer(settings), scorer.score_all(drawn), 0.7).figures["draws"]
        assert list(found) == ["temperature", "avg@2", "best@2"] and found["temperature"] == 0.7
        average, best = found["avg@2"], found["best@2"]
        two_thirds = 100 * 2 / 3
        assert average["f1"] == average["rougeL"] == pytest.approx(((100 + two_thirds) / 2 + 50) / 2)
        assert average["exact_match"] == 50 and best["f1"] == best["rougeL"] == best["exact_match"] == 100
        assert average["reward"] == pytest.approx(np.mean(alone)) and best["reward"] == pytest.approx(
            np.max(alone, axis=1).mean()
        )
        assert average["intervals"]["exact_match"] == [50, 50] and best["intervals"]["f1"] == [100, 100]


def test_a_reward_that_applies_to_no_draw_of_a_prompt_leaves_it_out():
    group = make_group(["a", "b"], ("a",))
    paid = [replace(group, reward_parts={"extra/x": np.array(own, np.float32)}) for own in ([2, np.nan], [np.nan, np.nan])]
    settings = RewardSettings(f1=0, rouge=0, bleu=0, extra=({"function": "no_such_module:x"},))
    scored = Scorer(RewardSettings()).score_all([make_group(["a"], ("a",))])
    found = evaluate(scored, None, MetricScorer(settings), paid).figures["draws"]
    assert found["avg@2"]["reward"] == found["best@2"]["reward"] == 2


def test_bleu_is_sacrebleus_corpus_bleu_over_ragged_references():
    groups = [make_group(["d1 c1 b1 a1 x1"], ("d1 c1 b1 a1", "a1 b1")), make_group(["i am good"], ("I am good!",))]
    expected = BLEU().corpus_score(["d1 c1 b1 a1 x1", "i am good"], [["d1 c1 b1 a1", "I am good!"], ["a1 b1", None]]).score
    assert evaluated(groups, None)["bleu"] == pytest.approx(expected) != 0


def test_constant_reply_is_judged_as_if_said_to_everything():
    result = evaluated(GROUPS, "i am good", RewardSettings(f1=2, bleu=0))["constant_reply"]
    assert result == {
        "text": "i am good",
        "reward": pytest.approx(2 * 0.25 + 0.25),
        "f1": pytest.approx(25),
        "rougeL": pytest.approx(25),
        "bleu": None,  # three tokens
    }


def test_bleu_of_a_constant_reply_is_that_of_saying_it_everywhere():
    said = evaluated(GROUPS, "the dog is good")["constant_reply"]["bleu"]
    assert said == pytest.approx(BLEU().corpus_score(["the dog is good"] * 4, STREAMS).score) != 0


def test_constant_reply_equals_a_policy_that_says_it():
    text = "the dog is good"
    same = [make_group([text], group.prompt.answers) for group in GROUPS]
    for mode in ("sum", "lapdog"):
        result = evaluated(same, text, RewardSettings(mode=mode))
        same_figures = {key: pytest.approx(result[key]) for key in ("reward", "f1", "rougeL", "bleu")}
        assert result["constant_reply"] == {"text": text} | same_figures


def test_unknown_figures_are_none_and_all_are_json():
    result = evaluated([make_group(["yes"], ("yes",))], None)
    assert result["bleu"] is result["constant_reply"] is result["recall@1"] is result["recall@5"] is result["recall@20"] is None
    assert json.loads(json.dumps(result)) == result


def test_gold_that_no_passage_has_is_not_counted_in_recall():
    found = make_group(["a"], ("a",), gold=("p1", "gone"), ranking=("p1",))
    missed = make_group(["a"], ("a",), gold=("p2",), ranking=("p1",))
    gone = make_group(["a"], ("a",), gold=("gone",), ranking=("p1",))
    groups = [replace(each, prompt=replace(each.prompt, absent_gold=("gone",))) for each in (found, missed, gone)]
    assert evaluated(groups, None)["recall@1"] == 50
    assert evaluated(groups[2:], None)["recall@1"] is None


def test_the_reward_is_the_mean_of_those_that_apply(monkeypatch):
    answers = {"a1 b1 c1 d1": [1.0], "i am good": [None], "": [3.0]}
    module = SimpleNamespace(own=lambda prompt, passages, responses: answers[responses[0]])
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    own = RewardSettings(f1=0, rouge=0, bleu=0, extra=({"function": "own_rewards:own"},))
    assert evaluated(GROUPS, None, own)["reward"] == 2
    assert evaluated(GROUPS[1:3], None, own)["reward"] is None
    assert evaluated(GROUPS, "i am good", own)["constant_reply"]["reward"] is None  # unknown, not dearly found out


def test_replies_without_words_have_no_diversity():
    result = evaluated([make_group([""], ("yes",))], None)
    assert result["distinct1"] == result["distinct2"] == result["mean_words"] == 0 and result["bleu"] is None


def test_a_prediction_tells_the_reply_and_what_was_read():
    read = Retrieval(passages=(Passage(id="p1", title="t", text="at home"),), scores=(0.5,))
    group = replace(make_group(["home"], ("at home", "home")), retrieval=read)
    assert evaluate(Scorer(RewardSettings()).score_all([group]), None, MetricScorer(RewardSettings())).predictions == [
        {
            "id": "q17",
            "question": "?",
            "answers": ("at home", "home"),
            "prediction": "home",
            "passages": [{"id": "p1", "title": "t", "text": "at home", "score": 0.5}],
        }
    ]


def test_of_a_hybrid_each_score_has_a_recall_of_its_own() -> None:
    def found(group: Group, lexical: tuple[str, ...], dense: tuple[str, ...]) -> Group:
        parts = {"lexical": PartRanking(scores=(), ranking=lexical), "dense": PartRanking(scores=(), ranking=dense)}
        return replace(group, retrieval=replace(group.retrieval, parts=parts))

    groups = [found(GROUPS[0], ("p3",), ("p1", "p2", "p3")), found(GROUPS[1], ("x", "p9"), ("p1",)), GROUPS[2], GROUPS[3]]
    result = evaluated(groups, None)
    told = {name: result[name] for name in result if name.startswith("recall_")}
    assert told == {  # of the first two: the third's passages were not found by two scores, the last has no gold
        **{"recall_lexical@1": 50, "recall_lexical@5": 100, "recall_lexical@20": 100},
        **{"recall_dense@1": 50, "recall_dense@5": 100, "recall_dense@20": 100},
    }
    assert result["recall@1"] == pytest.approx(100 / 3) and set(told) <= set(result["intervals"])


def test_predictions_tell_both_scores_of_a_hybrid() -> None:
    passage = Passage(id="p3", title="", text="a story")
    parts = {"lexical": PartRanking(scores=(2.0,), ranking=()), "dense": PartRanking(scores=(0.5,), ranking=())}
    hybrid = replace(GROUPS[0], retrieval=Retrieval(passages=(passage,), scores=(12.0,), parts=parts))
    settings = RewardSettings()
    [row] = evaluate(Scorer(settings).score_all([hybrid]), None, MetricScorer(settings)).predictions
    told = {"id": "p3", "title": "", "text": "a story", "score": 12.0, "lexical_score": 2.0, "dense_score": 0.5}
    assert row["passages"] == [told]
