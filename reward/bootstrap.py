"""How far held-out figures may be trusted: 95 % percentile intervals of the bootstrap over examples (Efron 1979), for corpus
BLEU over its counts (Koehn 2004)."""

from collections.abc import Mapping

import numpy as np

from reward.metrics import bleu_of_counts

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
SEED = 0

Interval = list[float]


def intervals(scores: Mapping[str, np.ndarray], bleu_counts: np.ndarray | None = None) -> dict[str, Interval | None]:
    """{name: [low, high]} of the means of the scores of N >= 1 examples, float64 [N] each, NaN where one has none: those are
    left out of the mean. bleu_counts int [N, 10] adds `bleu`, a percentage. None for a figure that no example has. All figures
    are taken over the same draws of examples."""
    values = np.stack(list(scores.values()), axis=1)
    known = ~np.isnan(values)
    columns = [np.where(known, values, 0), known, *([] if bleu_counts is None else [bleu_counts])]
    sums, width = _resampled_sums(np.concatenate(columns, axis=1, dtype=np.float64)), len(scores)
    with np.errstate(invalid="ignore"):
        means = sums[:, :width] / sums[:, width : 2 * width]
    found = {name: _interval(means[:, i]) for i, name in enumerate(scores)}
    if bleu_counts is not None:
        bleu = [bleu_of_counts(row) for row in sums[:, 2 * width :]]
        found["bleu"] = _interval(np.array([np.nan if score is None else 100 * score for score in bleu]))
    return found


def _resampled_sums(columns: np.ndarray) -> np.ndarray:
    """Sums [RESAMPLES, C] of columns [N, C], each over N examples drawn with replacement."""
    rng, count = np.random.default_rng(SEED), len(columns)
    drawn = (rng.integers(count, size=count) for _ in range(RESAMPLES))
    return np.stack([np.bincount(own, minlength=count) @ columns for own in drawn])


def _interval(resampled: np.ndarray) -> Interval | None:
    known = resampled[~np.isnan(resampled)]
    return [float(bound) for bound in np.percentile(known, PERCENTILES)] if len(known) else None
