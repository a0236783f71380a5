"""Group -> rewards and their parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from reward.config import RewardSettings
from reward.extra import LoadedReward
from reward.metrics import TextMetrics, best
from rollout.text import ENGLISH, TextRules
from rollout.types import Group, Prompt

# by the names that extra rewards are logged under, float64 [G] for each group
Measured = Mapping[str, Sequence[np.ndarray]]


class MetricScorer:
    """F1, ROUGE-L and BLEU of texts, F1 on raw tokens in mode lapdog; needs none of the user's functions."""

    def __init__(self, settings: RewardSettings, rules: TextRules = ENGLISH) -> None:
        self.settings, self.text = settings, TextMetrics(rules)
        self._f1 = self.text.raw_f1 if settings.mode == "lapdog" else self.text.f1

    def measure(self, texts: Sequence[str], answers: tuple[str, ...]) -> dict[str, np.ndarray]:
        """{f1, rougeL, bleu} of the texts, float64 [G] each, in [0, 1].

        With several answers each metric takes its own maximum; equal texts are measured once.
        """
        metrics = {"f1": self._f1, "rougeL": self.text.rouge_l, "bleu": self.text.bleu}
        known = {text: [best(metric, text, answers) for metric in metrics.values()] for text in dict.fromkeys(texts)}
        columns = np.array([known[text] for text in texts], np.float64).reshape(-1, len(metrics)).T
        return dict(zip(metrics, columns, strict=True))

    def mean_of_constant(self, text: str, prompts: Sequence[Prompt]) -> float | None:
        """Mean reward of N >= 1 lone replies that all say `text`. None with extra rewards: each may cost a model's call."""
        if self.settings.extra:
            return None
        parts = [self.measure([text], prompt.answers) for prompt in prompts]
        weights = self.settings.weights()
        return float(np.mean([sum(weight * own[name][0] for name, weight in weights.items()) for own in parts]))


class Scorer:
    """Pays each response of a group by weighted F1, ROUGE-L, BLEU and the user's own rewards.

    sum: `w_f1*F1 + w_rouge*ROUGE-L + w_bleu*BLEU`, each part in [0, 1], F1 on normalised tokens.
    lapdog: the LAPDOG paper's score for comparison, F1 on raw tokens and BLEU divided by its L2 norm over the group (0 if
    all are 0); a lone greedy reply has no group and keeps its BLEU. The weighted values of extra rewards are added; where
    one does not apply to a response it is left out of the sum and of every mean. How they are called: `LoadedReward`.
    """

    def __init__(self, settings: RewardSettings, rules: TextRules = ENGLISH) -> None:
        """Loads the extra rewards that are not measured elsewhere. Raises RewardError if one cannot be loaded."""
        self.settings = settings
        self._metrics = MetricScorer(settings, rules)
        self._loaded = [LoadedReward(extra) for extra in settings.extra if not extra.own_pool]

    def score(self, group: Group) -> Group:
        """The same of one group."""
        return self.score_all([group])[0]

    def score_all(self, groups: Sequence[Group], measured: Iterable[Measured] = ()) -> list[Group]:
        """Returns the groups with rewards float32 [G] and reward_parts: f1, rougeL, bleu and each extra's column, unweighted.

        measured: the values of the extra rewards that have actors of their own. reward_parts are float32 [G], NaN where one
        does not apply; bleu is sentence BLEU / 100 in both modes. A reward is NaN where no part that has a weight applies.
        Raises RewardError if an extra reward fails.
        """
        values: dict[str, Sequence[np.ndarray]] = {own.extra.column: own.measure(groups) for own in self._loaded}
        for elsewhere in measured:
            values.update(elsewhere)
        columns = [extra.column for extra in self.settings.extra]
        return [self._paid(group, {name: values[name][i] for name in columns}) for i, group in enumerate(groups)]

    def _paid(self, group: Group, extra: dict[str, np.ndarray]) -> Group:
        texts = [response.text for response in group.responses]
        parts = self._metrics.measure(texts, group.prompt.answers) | extra
        paid = {name: weight * parts[name] for name, weight in self.settings.weights().items()}
        if self.settings.mode == "lapdog" and len(texts) > 1 and (norm := np.linalg.norm(parts["bleu"])) > 0:
            paid["bleu"] = self.settings.bleu * parts["bleu"] / norm
        rewards = _sum_of_present(list(paid.values()), len(texts))
        return replace(
            group,
            rewards=rewards.astype(np.float32),
            reward_parts={name: values.astype(np.float32) for name, values in parts.items()},
        )


def rewards_alone(group: Group, settings: RewardSettings) -> np.ndarray:
    """float64 [G]: what each response of a scored group would earn as the only one, whose BLEU mode lapdog leaves as it is."""
    weighted = [weight * group.reward_parts[name].astype(np.float64) for name, weight in settings.weights().items()]
    return _sum_of_present(weighted, len(group.responses))


def reward_range(group: Group) -> float:
    """Highest minus lowest reward of a scored group; 0 if one at most applies: nothing can be learnt from comparing them."""
    assert group.rewards is not None, f"prompt {group.prompt.key} came without rewards"
    applying = group.rewards[~np.isnan(group.rewards)]
    return float(np.ptp(applying)) if len(applying) else 0.0


def _sum_of_present(parts: list[np.ndarray], size: int) -> np.ndarray:
    """NaN where all are NaN; 0 if there are no parts."""
    if not parts:
        return np.zeros(size)
    stacked = np.stack(parts)
    return np.where(np.isnan(stacked).all(0), np.nan, np.nansum(stacked, 0))
