"""Greedy replies to a whole file -> the evaluation's figures and a row for each reply."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward.metrics import best
from reward.scorer import MetricScorer
from rollout.types import Group

RECALL_DEPTHS = (1, 5, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """predictions: a row for every reply, with its passages."""

    figures: dict[str, Any]
    predictions: list[dict[str, Any]]


def evaluate(groups: Sequence[Group], constant_reply: str | None, scorer: MetricScorer) -> Evaluation:
    """Of N >= 1 scored groups of one greedy reply, each prompt with an answer or more; nothing is rounded.

    `reward` is in the training reward's units, over the replies that it applies to, None if there are none; everything from
    f1 on is a percentage in [0, 100], except mean_words. The text metrics take the best answer of an example and the mean
    over examples; bleu is corpus BLEU with all answers as references, None where no reply has four tokens. recall@n: examples
    with gold passages of which one is among the first n retrieved; None where no example has gold. constant_reply: what that
    text would reach as the reply to every example, the floor below which a policy has learnt nothing; its reward is what
    `scorer` pays, None with extra rewards.
    """
    texts = [group.responses[0].text for group in groups]
    answers = [group.prompt.answers for group in groups]
    metrics, words = scorer.text, [scorer.text.rules.raw_tokens(text) for text in texts]
    rouges = [metrics.rouge(text, own) for text, own in zip(texts, answers, strict=True)]
    figures = {
        "examples": len(groups),
        "reward": _mean_reward(groups),
        "f1": _percent(best(metrics.f1, text, own) for text, own in zip(texts, answers, strict=True)),
        **{name: _percent(scores[name] for scores in rouges) for name in ("rouge1", "rouge2", "rougeL")},
        "bleu": _percentage(metrics.corpus_bleu(texts, answers)),
        "exact_match": _percent(best(metrics.exact_match, text, own) for text, own in zip(texts, answers, strict=True)),
        "distinct1": _distinct(words, 1),
        "distinct2": _distinct(words, 2),
        "unique_replies": 100 * len(set(texts)) / len(texts),
        "mean_words": float(np.mean([len(own) for own in words])),
        **{f"recall@{depth}": _recall(groups, depth) for depth in RECALL_DEPTHS},
        "constant_reply": None if constant_reply is None else _floor(constant_reply, groups, scorer),
    }
    return Evaluation(figures=figures, predictions=[_prediction(group) for group in groups])


def _prediction(group: Group) -> dict[str, Any]:
    return {
        "id": group.prompt.id,
        "question": group.prompt.question,
        "answers": group.prompt.answers,
        "prediction": group.responses[0].text,
        "passages": [
            {"id": passage.id, "title": passage.title, "text": passage.text, "score": score}
            for passage, score in zip(group.retrieval.passages, group.retrieval.scores, strict=True)
        ],
    }


def _mean_reward(groups: Sequence[Group]) -> float | None:
    rewards = np.concatenate([group.rewards for group in groups if group.rewards is not None])
    return None if np.isnan(rewards).all() else float(np.nanmean(rewards))


def _floor(text: str, groups: Sequence[Group], scorer: MetricScorer) -> dict[str, Any]:
    answers = [group.prompt.answers for group in groups]
    return {
        "text": text,
        "reward": scorer.mean_of_constant(text, [group.prompt for group in groups]),
        "f1": _percent(best(scorer.text.f1, text, own) for own in answers),
        "rougeL": _percent(best(scorer.text.rouge_l, text, own) for own in answers),
        "bleu": _percentage(scorer.text.corpus_bleu([text] * len(answers), answers)),
    }


def _distinct(words: Sequence[Sequence[str]], n: int) -> float:
    """Distinct-n of Li et al. 2016 over the corpus, in percent: different n-grams / all n-grams; 0 if there are none."""
    grams = [tuple(own[i : i + n]) for own in words for i in range(len(own) - n + 1)]
    return 100 * len(set(grams)) / len(grams) if grams else 0.0


def _recall(groups: Sequence[Group], depth: int) -> float | None:
    """Of the examples of which a passage has a gold id."""
    known = [(group, set(group.prompt.gold) - set(group.prompt.absent_gold)) for group in groups]
    hits = [not gold.isdisjoint(group.retrieval.ranking[:depth]) for group, gold in known if gold]
    return _percent(hits) if hits else None


def _percentage(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _percent(values: Iterable[float]) -> float:
    return 100 * float(np.mean(list(values)))
