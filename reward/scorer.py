"""Group -> rewards and their parts."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from reprlib import repr as short

import numpy as np

from reward.config import RewardSettings
from reward.metrics import best, bleu, f1, raw_f1, rouge_l
from rollout.errors import RewardError
from rollout.types import Group, Passage, Prompt

RewardFunction = Callable[[Prompt, tuple[Passage, ...], list[str]], Sequence[float | None]]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Scorer:
    """Pays each response of a group by weighted F1, ROUGE-L, BLEU and the user's own functions.

    sum: `w_f1*F1 + w_rouge*ROUGE-L + w_bleu*BLEU`, each part in [0, 1], F1 on SQuAD-normalised tokens.
    lapdog: the LAPDOG paper's score for comparison, F1 on raw tokens and BLEU divided by its L2 norm over the group (0 if
    all are 0); a lone greedy reply has no group and keeps its BLEU. An extra reward is called once a group as
    `function(prompt, passages, responses) -> [number or None] * G` and its weighted values are added; None says that the
    reward does not apply to a response: it is left out of the sum and of every mean.
    """

    def __init__(self, settings: RewardSettings) -> None:
        """Raises RewardError if an extra reward's function cannot be imported."""
        self.settings = settings
        self._f1 = raw_f1 if settings.mode == "lapdog" else f1
        self._extra = [(extra, load_function(extra.function)) for extra in settings.extra]

    def score(self, group: Group) -> Group:
        """Returns the group with rewards float32 [G] and reward_parts: f1, rougeL, bleu and each extra's name, unweighted.

        reward_parts are float32 [G], NaN where one does not apply; bleu is sentence BLEU / 100 in both modes. A reward is NaN
        where no part that has a weight applies. With several answers each metric takes its own maximum; equal texts are
        measured once. Raises RewardError if an extra reward fails.
        """
        texts = [response.text for response in group.responses]
        parts = self._measure(texts, group.prompt.answers)
        for extra, function in self._extra:
            parts[extra.name] = call_function(function, extra.function, group.prompt, group.retrieval.passages, texts)
        paid = {name: weight * parts[name] for name, weight in self.settings.weights().items()}
        if self.settings.mode == "lapdog" and len(texts) > 1 and (norm := np.linalg.norm(parts["bleu"])) > 0:
            paid["bleu"] = self.settings.bleu * parts["bleu"] / norm
        rewards = _sum_of_present(list(paid.values()), len(texts))
        return replace(
            group,
            rewards=rewards.astype(np.float32),
            reward_parts={name: values.astype(np.float32) for name, values in parts.items()},
        )

    def mean_of_constant(self, text: str, prompts: Sequence[Prompt]) -> float | None:
        """Mean reward of N >= 1 lone replies that all say `text`. None with extra rewards: each may cost a model's call."""
        if self._extra:
            return None
        parts = [self._measure([text], prompt.answers) for prompt in prompts]
        weights = self.settings.weights()
        return float(np.mean([sum(weight * own[name][0] for name, weight in weights.items()) for own in parts]))

    def _measure(self, texts: list[str], answers: tuple[str, ...]) -> dict[str, np.ndarray]:
        """{f1, rougeL, bleu} of the texts, float64 [G] each, in [0, 1]."""
        metrics = {"f1": self._f1, "rougeL": rouge_l, "bleu": bleu}
        known = {text: [best(metric, text, answers) for metric in metrics.values()] for text in dict.fromkeys(texts)}
        columns = np.array([known[text] for text in texts], np.float64).reshape(-1, len(metrics)).T
        return dict(zip(metrics, columns, strict=True))


def load_function(name: str) -> RewardFunction:
    """Imports `module:function`. Raises RewardError if that fails or yields nothing callable."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing runs the user's module, which may raise anything
        remedy = "check the spelling and that the module's folder is on PYTHONPATH"
        raise RewardError(f"reward.extra: cannot import {name!r} ({_describe(error)}): {remedy}") from error
    if not callable(function):
        raise RewardError(f"reward.extra: {name!r} is a {type(function).__name__}: name a function")
    return function


def call_function(
    function: RewardFunction, name: str, prompt: Prompt, passages: tuple[Passage, ...], texts: list[str]
) -> np.ndarray:
    """The user's values for the texts, float64 [G], NaN for None. Raises RewardError unless they are G numbers or None."""
    place = f"reward.extra: {name!r} on prompt {prompt.id!r}"
    remedy = f"return a list with one number (or None) per response, here {len(texts)}, each finite as float32"
    try:
        values = function(prompt, passages, list(texts))
        values = values.tolist() if isinstance(values, np.ndarray) else values
    except (Exception, SystemExit) as error:
        raise RewardError(f"{place} raised {_describe(error)}: mend the function or remove it") from error
    if not isinstance(values, list | tuple):
        raise RewardError(f"{place} returned {_one_line(short(values))}: {remedy}")
    if len(values) != len(texts):
        raise RewardError(f"{place} returned {len(values)} values: {remedy}")
    for value in values:
        if value is not None and not _is_finite(value):
            raise RewardError(f"{place} returned {_one_line(short(value))} among its values: {remedy}")
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


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


def _is_finite(value: object) -> bool:
    number = value.item() if isinstance(value, np.generic) else value
    return isinstance(number, int | float) and abs(number) <= _FLOAT32_MAX


def _describe(error: BaseException) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
