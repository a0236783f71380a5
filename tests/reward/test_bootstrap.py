"""Intervals of held-out figures, against the plain way: draw examples, compute the figure anew."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from reward import bootstrap
from reward.bootstrap import PERCENTILES, RESAMPLES, SEED, intervals
from reward.metrics import TextMetrics
from rollout.text import ENGLISH

SCORES = np.array([0.0, 1.0, 0.25, 0.5, 0.75])
TEXTS = ["the cat sat on the mat", "i am good", "a dog runs in the park", ""]
ANSWERS = [("the cat sat on a mat", "a cat sat"), ("I am good!",), ("the dog runs in the park",), ("yes",)]


def drawn(count: int, times: int) -> list[np.ndarray]:
    rng = np.random.default_rng(SEED)
    return [rng.integers(count, size=count) for _ in range(times)]


def test_an_interval_holds_the_middle_of_the_means_of_drawn_examples() -> None:
    means = [SCORES[places].mean() for places in drawn(5, RESAMPLES)]
    [low, high] = intervals({"f1": SCORES})["f1"] or []
    assert [low, high] == pytest.approx(np.percentile(means, PERCENTILES))
    assert 0 < low < SCORES.mean() < high < 1


def test_examples_without_a_score_are_left_out_of_the_mean() -> None:
    scores = np.array([np.nan, 1.0, 3.0, np.nan])
    means = [np.nanmean(scores[places]) for places in drawn(4, RESAMPLES) if not np.isnan(scores[places]).all()]
    found = intervals({"reward": scores, "recall@1": np.full(4, np.nan)})
    assert found == {"reward": pytest.approx(np.percentile(means, PERCENTILES).tolist()), "recall@1": None}


def test_one_example_and_equal_ones_have_an_interval_of_no_width() -> None:
    assert intervals({"f1": np.array([40.0])}) == {"f1": [40, 40]} == intervals({"f1": np.full(7, 40.0)})


def test_intervals_come_again_whatever_stands_beside_them() -> None:
    assert intervals({"f1": SCORES})["f1"] == intervals({"reward": 2 * SCORES, "f1": SCORES})["f1"]


def test_bleu_is_that_of_the_drawn_examples_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    counts = TextMetrics(ENGLISH).bleu_counts(TEXTS, ANSWERS)
    scores = []
    for places in drawn(4, 50):
        streams = [[ANSWERS[i][0] for i in places], [ANSWERS[i][1] if len(ANSWERS[i]) > 1 else None for i in places]]
        score = BLEU(force=True).corpus_score([TEXTS[i] for i in places], streams)  # type: ignore[arg-type]
        scores += [score.score] if score.totals[-1] else []
    assert len(scores) < 50  # where all drawn are short, there is none
    assert intervals({"f1": np.zeros(4)}, counts)["bleu"] == pytest.approx(np.percentile(scores, PERCENTILES))
