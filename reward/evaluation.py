"""Replies to a whole file, greedy ones and draws -> the evaluation's figures and a row for each greedy reply."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward.bootstrap import intervals
from reward.metrics import best, bleu_of_counts
from reward.scorer import MetricScorer, rewards_alone
from rollout.types import Group

RECALL_DEPTHS = (1, 5, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """predictions: a row for every reply, with its passages."""

    figures: dict[str, Any]
    predictions: list[dict[str, Any]]


def evaluate(
    groups: Sequence[Group],
    constant_reply: str | None,
    scorer: MetricScorer,
    drawn: Sequence[Group] = (),
    temperature: float = 1.0,
) -> Evaluation:
    """Of N >= 1 scored groups of one greedy reply, each prompt with an answer or more; nothing is rounded.

    `reward` is in the training reward's units, over the replies that it applies to, None if there are none; everything from
    f1 on is a percentage in [0, 100], except mean_words. The text metrics take the best answer of an example and the mean
    over examples; bleu is corpus BLEU with all answers as references, None where no reply has four tokens. recall@n: examples
    with gold passages of which one is among the first n retrieved; None where no example has gold; recall_lexical@n and
    recall_dense@n: by each score of a hybrid alone. intervals: of all that can be drawn again by examples; what counts
    distinct texts cannot. draws: of scored groups of n replies drawn at a temperature, their figures avg@n and best@n.
    constant_reply: what that text would reach as the reply to every example, the floor; its reward is what `scorer` pays,
    None with extra rewards.
    """
    texts, answers = [group.responses[0].text for group in groups], [group.prompt.answers for group in groups]
    words = [scorer.text.rules.raw_tokens(text) for text in texts]
    counts = scorer.text.bleu_counts(texts, answers)
    shares, recalls = _shares(texts, answers, scorer), _recalls(groups)
    lengths = np.array([len(own) for own in words], np.float64)
    rewards = np.array([np.nan if group.rewards is None else group.rewards[0] for group in groups], np.float64)
    percentages = {name: 100 * own for name, own in (shares | recalls).items()}
    figures = {
        "examples": len(groups),
        "reward": _mean_reward(groups),
        **{name: 100 * float(np.mean(shares[name])) for name in ("f1", "rouge1", "rouge2", "rougeL")},
        "bleu": _percentage(bleu_of_counts(counts.sum(0))),
        "exact_match": 100 * float(np.mean(shares["exact_match"])),
        **_variety(texts, words),
        "mean_words": float(np.mean(lengths)),
        **{name: _percentage(_mean_of_known(own)) for name, own in recalls.items()},
        "intervals": intervals({"reward": rewards, **percentages, "mean_words": lengths}, counts),
        **({"draws": _draws(drawn, scorer, temperature)} if drawn else {}),
        "constant_reply": None if constant_reply is None else _floor(constant_reply, groups, scorer),
    }
    draws = {group.prompt.id: [response.text for response in group.responses] for group in drawn}
    return Evaluation(figures=figures, predictions=[_prediction(group, draws) for group in groups])


def _variety(texts: Sequence[str], words: Sequence[Sequence[str]]) -> dict[str, float]:
    unique = 100 * len(set(texts)) / len(texts)
    return {"distinct1": _distinct(words, 1), "distinct2": _distinct(words, 2), "unique_replies": unique}


def _shares(texts: Sequence[str], answers: Sequence[Sequence[str]], scorer: MetricScorer) -> dict[str, np.ndarray]:
    """Scores of the replies, float64 [N] in [0, 1]."""
    metrics, pairs = scorer.text, list(zip(texts, answers, strict=True))
    rouges = [metrics.rouge(text, own) for text, own in pairs]
    scores = {
        "f1": [best(metrics.f1, text, own) for text, own in pairs],
        **{name: [own[name] for own in rouges] for name in ("rouge1", "rouge2", "rougeL")},
        "exact_match": [best(metrics.exact_match, text, own) for text, own in pairs],
    }
    return {name: np.array(values, np.float64) for name, values in scores.items()}


def _draws(groups: Sequence[Group], scorer: MetricScorer, temperature: float) -> dict[str, Any]:
    """avg@n: mean over a prompt's n draws; best@n: each figure's best of them; both in the mean over prompts."""
    metrics, count = scorer.text, len(groups[0].responses)
    of_text = {"f1": metrics.f1, "rougeL": metrics.rouge_l, "exact_match": metrics.exact_match}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in ("reward", *of_text)}
    for group in groups:
        scores["reward"].append(rewards_alone(group, scorer.settings))
        for name, metric in of_text.items():
            known = {text: best(metric, text, group.prompt.answers) for text in {each.text for each in group.responses}}
            scores[name].append(np.array([100 * known[response.text] for response in group.responses]))
    found: dict[str, Any] = {"temperature": temperature}
    for name, of_prompt in (("avg", np.mean), ("best", np.max)):
        each = {key: np.array([_of_known(own, of_prompt) for own in values]) for key, values in scores.items()}
        found[f"{name}@{count}"] = {key: _mean_of_known(own) for key, own in each.items()} | {"intervals": intervals(each)}
    return found


def _of_known(values: np.ndarray, together: Callable[[np.ndarray], Any]) -> float:
    known = values[~np.isnan(values)]
    return float(together(known)) if len(known) else np.nan


def _mean_of_known(values: np.ndarray) -> float | None:
    mean = _of_known(values, np.mean)
    return None if np.isnan(mean) else mean


def _prediction(group: Group, draws: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """draws: the texts drawn for prompts, by their ids."""
    return {
        "id": group.prompt.id,
        "question": group.prompt.question,
        "answers": group.prompt.answers,
        "prediction": group.responses[0].text,
        **({"draws": draws[group.prompt.id]} if group.prompt.id in draws else {}),
        "passages": [
            {"id": passage.id, "title": passage.title, "text": passage.text, "score": score}
            | {f"{name}_score": part.scores[i] for name, part in group.retrieval.parts.items()}
            for i, (passage, score) in enumerate(zip(group.retrieval.passages, group.retrieval.scores, strict=True))
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


def _recalls(groups: Sequence[Group]) -> dict[str, np.ndarray]:
    """1 or 0, float64 [N]; NaN for examples of which no passage has a gold id, or whose passages a hybrid did not find."""
    rankings: dict[str, list[tuple[str, ...] | None]] = {"recall": [group.retrieval.ranking for group in groups]}
    for part in dict.fromkeys(name for group in groups for name in group.retrieval.parts):
        own = (group.retrieval.parts.get(part) for group in groups)
        rankings[f"recall_{part}"] = [None if each is None else each.ranking for each in own]
    known = [set(group.prompt.gold) - set(group.prompt.absent_gold) for group in groups]
    return {
        f"{name}@{depth}": np.array([_found(gold, ranking, depth) for gold, ranking in zip(known, own, strict=True)])
        for name, own in rankings.items()
        for depth in RECALL_DEPTHS
    }


def _found(gold: Collection[str], ranking: Sequence[str] | None, depth: int) -> float:
    return np.nan if not gold or ranking is None else float(not set(gold).isdisjoint(ranking[:depth]))


def _percentage(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _percent(values: Iterable[float]) -> float:
    return 100 * float(np.mean(list(values)))
