"""What a run exports to Prometheus: series, and how rows of metrics.jsonl and evaluations.jsonl fill them."""

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.settings.markdown import table
from cluster.store.metrics import HELD_OUT, columns
from cluster.store.rows import Row
from rollout.data.file_settings import UNNAMED

PREFIX = "lapdog_"  # to which Ray adds ray_
BASE_UNITS = {"MB": 1e6}  # bytes
Value = tuple[str, dict[str, str], float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """labels: beside `run`, which every series has."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


# where a series says more than its metric, or is that of several
MEANINGS = {
    "last_step_timestamp_seconds": "when the last step was finished; before the first, when the run started",
    "reward_part": "mean of a part of the reward: f1, rougeL, bleu, or extra/NAME of a user's own",
    "policy_to_sampler_ratio": "probability ratio of a token, by quantile; 1 is the largest",
    "staleness_steps": "age of the batch's responses between sampling and training",
    "padding_ratio": "share of the tokens that a role computed that are padding",
    "peak_memory_bytes": "peak memory of the role's largest process: of a GPU if it has one, else resident",
    "groups_total": "groups sampled, scored, trained on",
    "tokens_total": "response tokens sampled, scored, trained on",
    "phase_seconds_total": "sample, reward: summed over actors; update: of the learner; "
    "step, evaluate, save: wall time, one after the other",
}
OF_NO_METRIC = (
    Series("steps_total", "steps finished"),
    Series("restarts_total", "actors that were replaced", ("role",)),
    Series("ends_total", "1 once the driver has ended the run, finished or stopped; 0 stays where it was lost"),
    Series("actors", "actors that are starting, idle or busy", ("role", "state")),
    Series("queue_prompts", "prompts waiting for a sampler, running, or ready to be trained on", ("queue",)),
    Series("failed_prompts", "prompts that failed three times by themselves, of the file train or valid", ("file",)),
    Series("held_out_reward", "mean training reward of the greedy replies of the last evaluation", ("set",)),
    Series(
        "constant_reply_reward", "the same of the best constant reply: the floor; none with rewards of a user's own", ("set",)
    ),
    Series("held_out_score_ratio", "f1, rouge1, ... recall_at_20 of the last evaluation", ("score", "set")),
    Series("held_out_words", "mean length of a reply of the last evaluation", ("set",)),
    Series("constant_reply_score_ratio", "f1, rougeL, bleu of the best constant reply: the floor", ("score", "set")),
    Series("draws_reward", "training reward of the replies drawn in the last evaluation: avg_at_n, best_at_n", ("of", "set")),
    Series("draws_score_ratio", "their f1, rougeL, exact_match", ("of", "score", "set")),
    Series(
        "reading_reward", "the same of the last evaluation with other passages: none, gold, random, lexical", ("reading", "set")
    ),
    Series("reading_score_ratio", "f1, rouge1, ... recall_at_20 of these replies", ("reading", "score", "set")),
    Series("reading_words", "their mean length", ("reading", "set")),
)


def is_counter(series: str) -> bool:
    """It adds up what it is given, else it shows the last value."""
    return series.endswith("_total")


def all_series() -> list[Series]:
    found = {
        name: Series(name, MEANINGS.get(name, metric.meaning), tuple(labels))
        for metric in columns(["extra/NAME"])
        for name, labels in metric.exports
    }
    return [*found.values(), *OF_NO_METRIC]


def of_step(row: Row) -> Iterator[Value]:
    """(series, labels, value) of a row of metrics.jsonl; None where it has no value."""
    yield "steps_total", {}, 1.0
    for metric in columns(row):
        unit = BASE_UNITS.get(metric.unit, 1)
        for series, labels in metric.exports:
            value = metric.value(row) or 0 if is_counter(series) else row[metric.name]
            yield series, labels, None if value is None else value * unit


def of_evaluation(row: Row) -> Iterator[Value]:
    """The same of a row of evaluations.jsonl, its percentages as ratios. The only held-out set is called `valid`."""
    for name, figures in ((row.get("set") or UNNAMED, row), *(row.get("others") or {}).items()):
        yield from _of_figures("held_out", figures, {"set": name})
        yield from _of_figures("constant_reply", figures.get("constant_reply") or {}, {"set": name})
        for kind, drawn in (figures.get("draws") or {}).items():
            if isinstance(drawn, dict):
                yield from _of_figures("draws", drawn, {"set": name, "of": kind.replace("@", "_at_")})
        for reading, own in (figures.get("readings") or {}).items():
            yield from _of_figures("reading", own, {"set": name, "reading": reading})


def _of_figures(whose: str, figures: Row, labels: dict[str, str]) -> Iterator[Value]:
    for each in HELD_OUT:
        if (value := figures.get(each.name)) is not None:
            score = {"score": each.name.replace("@", "_at_")} if each.is_percentage else {}
            yield f"{whose}_{each.series}", labels | score, value / (100 if each.is_percentage else 1)


def documented() -> str:
    """The table of docs/monitoring.md."""
    rows = ((each.name, each.meaning, ", ".join(each.labels)) for each in all_series())
    return table(["ray_lapdog_...", "meaning", "labels beside run"], rows)


if __name__ == "__main__":
    print(documented(), end="")
