"""Figures and incidents over the steps, as few points however many steps there were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cluster.report.bounded import largest, mean
from cluster.store.records import Row

POINTS = 500


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure of metrics.jsonl over the steps; `key` as there."""

    key: str
    title: str
    about: str
    section: str
    exact: bool = False  # not to be smoothed
    largest: bool = False  # of several steps that are one point, their mean otherwise


CURVES = (
    Curve("reward", "Reward", "mean over all responses of a step", "Reward"),
    Curve("reward_std", "Spread within a group", "standard deviation: what GRPO learns from", "Reward"),
    Curve("f1", "F1", "part of the reward, 0 to 1", "Reward"),
    Curve("rougeL", "ROUGE-L", "part of the reward, 0 to 1", "Reward"),
    Curve("bleu", "BLEU", "part of the reward, 0 to 1", "Reward"),
    Curve("zero_variance", "Groups without spread", "share whose rewards are all equal: they teach nothing", "Reward"),
    Curve("kl", "KL to the reference", "nats a token", "Policy"),
    Curve("entropy", "Entropy", "nats a token", "Policy"),
    Curve("clip_fraction", "Clipped tokens", "share whose ratio was clipped", "Policy"),
    Curve("ratio_max", "Largest ratio", "policy / sampler over all tokens", "Policy", largest=True),
    Curve("kl_to_sampler", "KL to the sampler", "nats a token since the responses were drawn", "Policy"),
    Curve("truncated", "Cut responses", "share cut at rollout.max_new_tokens; in stage 1 of the gold answers", "Policy"),
    Curve("loss", "Loss", "what was minimised", "Optimiser"),
    Curve("grad_norm", "Gradient norm", "before clipping", "Optimiser", largest=True),
    Curve("lr", "Learning rate", "as used", "Optimiser", exact=True),
    Curve("staleness_mean", "Staleness", "versions published between sampling and training", "Throughput"),
    Curve("tokens_per_s", "Response tokens", "a second, over the wall time of the step", "Throughput"),
    Curve("groups_per_s", "Groups", "a second, over the wall time of the step", "Throughput"),
    Curve("seconds_step", "Step", "seconds of wall time", "Seconds"),
    Curve("seconds_sample", "Sampling", "seconds, summed over the samplers", "Seconds"),
    Curve("seconds_reward", "Scoring", "seconds, summed over the reward actors", "Seconds"),
    Curve("seconds_update", "Update", "seconds of the learner", "Seconds"),
    Curve("seconds_sync", "Taking weights", "seconds, summed over the samplers", "Seconds"),
    Curve("peak_memory_mb", "Learner's memory", "MB: of the GPU where there is one, else resident", "Throughput", exact=True),
    Curve("peak_memory_mb_sampler", "Samplers' memory", "MB of the one that held most, likewise", "Throughput", exact=True),
)
OF_RESPONSES = ("zero_variance", "staleness_mean", "seconds_reward", "seconds_sync")  # 0 where none are drawn
INCIDENTS = {
    "restarts": "actors replaced",
    "requeued": "prompts sampled again",
    "skipped": "steps skipped",
    "restarted": "learner or driver restarted",
}


def curves(rows: Sequence[Row]) -> dict[str, Any]:
    """About `POINTS` points at most: each the mean, or the largest, of as many steps of one stage, at the last of them."""
    size, parts = _parts(rows)
    of_several = {curve.key: largest for curve in CURVES if curve.largest}
    keys = {curve.key for curve in CURVES} | {key for row in rows for key in row if key.startswith("extra/")}
    return {
        "size": size,
        "steps": [part[-1]["step"] for part in parts],
        "values": {
            key: [of_several.get(key, mean)(_value(row, key) for row in part) for part in parts] for key in sorted(keys)
        },
    }


def stages(rows: Sequence[Row]) -> dict[str, list[int]]:
    """[first step, last step] by stage."""
    steps: dict[str, list[int]] = {}
    for row in rows:
        steps.setdefault(str(row.get("stage")), []).append(row["step"])
    return {name: [own[0], own[-1]] for name, own in steps.items()}


def incidents(rows: Sequence[Row]) -> dict[str, list[list[int]]]:
    """[first step, last step, how often] by kind, over the same parts of the run as the curves."""
    counted = [{name: row.get(name) or 0 for name in INCIDENTS} for row in rows]
    for row, before, times in zip(rows[1:], rows, counted[1:], strict=False):
        times["restarted"] = int(row.get("incarnation") != before.get("incarnation"))
    times_of = {row["step"]: times for row, times in zip(rows, counted, strict=True)}
    _, parts = _parts(rows)
    return {name: [mark for part in parts for mark in _mark(name, part, times_of)] for name in INCIDENTS}


def _mark(name: str, part: Sequence[Row], times_of: Mapping[int, Row]) -> list[list[int]]:
    """None, or one."""
    steps = [row["step"] for row in part if times_of[row["step"]][name]]
    return [[steps[0], steps[-1], sum(times_of[step][name] for step in steps)]] if steps else []


def _parts(rows: Sequence[Row]) -> tuple[int, list[Sequence[Row]]]:
    """How many rows a part has at most, and the parts, each of one stage."""
    size = -(-len(rows) // POINTS) or 1
    stages = [list(own) for _, own in groupby(rows, key=lambda row: row.get("stage"))]
    return size, [own[i : i + size] for own in stages for i in range(0, len(own), size)]


def _value(row: Row, key: str) -> float | None:
    return None if key in OF_RESPONSES and row.get("reward") is None else row.get(key)
