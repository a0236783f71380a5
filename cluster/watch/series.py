"""What a run exports to Prometheus, one line a series, and how rows of metrics.jsonl and evaluations.jsonl fill them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reward.config import METRICS

PREFIX = "lapdog_"  # to which Ray adds ray_
PHASES = {phase: f"seconds_{phase}" for phase in ("sample", "reward", "update", "step")}
STALENESS = {statistic: f"staleness_{statistic}" for statistic in ("mean", "max")}
WORK = {
    "sampler": ("sampled_groups", "sampled_tokens"),
    "reward": ("sampled_groups", "sampled_tokens"),
    "learner": ("trained_groups", "response_tokens"),
}
PADDING = {"sampler": "padding_sample", "learner": "padding_update"}
QUANTILES = {"0.01": "ratio_p01", "0.5": "ratio_p50", "0.99": "ratio_p99", "1": "ratio_max"}
PERCENTAGES = """f1 rouge1 rouge2 rougeL bleu exact_match distinct1 distinct2 unique_replies
recall@1 recall@5 recall@20""".split()

Row = Mapping[str, Any]
Value = tuple[str, dict[str, str], float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """labels: beside `run`, which every series has. keys: of metrics.jsonl, by the value of the label, "" without one."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_counter(self) -> bool:
        """It adds up what its keys hold, else it shows their last value."""
        return self.name.endswith("_total")


def _one(name: str, key: str, meaning: str) -> Series:
    return Series(name, meaning, (), {"": key})


SERIES = (
    _one("step", "step", "number of the last step"),
    _one("epoch", "epoch", "epoch of the newest prompt in the batch"),
    _one("incarnation", "incarnation", "how often the run was resumed or its learner replaced"),
    _one("last_step_timestamp_seconds", "time", "when the last step was finished; before the first, when the run started"),
    _one("loss", "loss", "loss of the last step"),
    _one("reward", "reward", "mean reward of the batch's responses"),
    _one("reward_std", "reward_std", "standard deviation of the rewards within a group, mean over groups"),
    Series("reward_part", "mean of a part of the reward: f1, rougeL, bleu, or extra/NAME of a user's own", ("part",)),
    _one("kl_nats_per_token", "kl", "estimated KL from policy to reference"),
    _one("kl_coef", "kl_coef", "weight of the KL to the reference"),
    _one("kl_to_sampler_nats_per_token", "kl_to_sampler", "KL from sampler to policy: how far the weights have moved"),
    _one("entropy_nats_per_token", "entropy", "entropy of the policy"),
    Series("policy_to_sampler_ratio", "probability ratio of a token, by quantile; 1 is the largest", ("quantile",), QUANTILES),
    _one("clipped_tokens_ratio", "clip_fraction", "share of tokens whose probability ratio was clipped"),
    _one("corrected_tokens_ratio", "corrected", "share of tokens whose off-policy correction met its cap"),
    _one("grad_norm", "grad_norm", "gradient norm before clipping"),
    _one("learning_rate", "lr", "learning rate of the last step"),
    Series("staleness_steps", "age of the batch's responses between sampling and training", ("statistic",), STALENESS),
    _one("zero_variance_groups_ratio", "zero_variance", "share of groups whose rewards are all equal"),
    _one("truncated_responses_ratio", "truncated", "share of responses cut at rollout.max_new_tokens"),
    _one("top_p_mass_ratio", "top_p_mass", "probability inside the nucleus; 1 unless rollout.top_p is below 1"),
    Series("padding_ratio", "share of the tokens that a role computed that are padding", ("role",), PADDING),
    Series("peak_memory_bytes", "peak memory of the role's largest process: of a GPU if it has one, else resident", ("role",)),
    Series("steps_total", "steps finished"),
    Series("groups_total", "groups sampled, scored, trained on", ("role",)),
    Series("tokens_total", "response tokens sampled, scored, trained on", ("role",)),
    Series(
        "phase_seconds_total",
        "sample, reward: summed over actors; update: of the learner; step, evaluate, save: wall time, one after the other",
        ("phase",),
        PHASES,
    ),
    _one("weight_sync_seconds_total", "seconds_sync", "time that samplers took to take in weights, summed over samplers"),
    _one("weight_sync_bytes_total", "bytes_sync", "weights that samplers took in, summed over samplers"),
    _one("filtered_groups_total", "filtered", "groups replaced because their rewards are all equal"),
    _one("requeued_groups_total", "requeued", "groups too old to be trained on; their prompts were queued again"),
    _one("skipped_updates_total", "skipped", "updates left out because loss or gradient was not finite"),
    Series("restarts_total", "actors that were replaced", ("role",)),
    Series("ends_total", "1 once the driver has ended the run, finished or stopped; 0 stays where it was lost"),
    Series("actors", "actors that are starting, idle or busy", ("role", "state")),
    Series("queue_prompts", "prompts waiting for a sampler, running, or ready to be trained on", ("queue",)),
    Series("failed_prompts", "prompts that failed three times by themselves, of the file train or valid", ("file",)),
    Series("held_out_reward", "mean training reward of the greedy replies of the last evaluation"),
    Series("constant_reply_reward", "the same of the best constant reply: the floor; none with rewards of a user's own"),
    Series("held_out_score_ratio", "f1, rouge1, ... recall_at_20 of the last evaluation", ("score",)),
    Series("held_out_words", "mean length of a reply of the last evaluation"),
    Series("constant_reply_score_ratio", "f1, rougeL, bleu of the best constant reply: the floor", ("score",)),
)


def of_step(row: Row) -> Iterator[Value]:
    """(series, labels, value) of a row of metrics.jsonl; None where it has no value."""
    for series in SERIES:
        for label, key in series.keys.items():
            yield series.name, dict(zip(series.labels, (label,), strict=False)), row[key]
    for key in row:
        if key in METRICS or key.startswith("extra/"):
            yield "reward_part", {"part": key}, row[key]
    for role, key in (("learner", "peak_memory_mb"), ("sampler", "peak_memory_mb_sampler")):
        yield "peak_memory_bytes", {"role": role}, None if row[key] is None else row[key] * 1e6
    yield "steps_total", {}, 1.0
    for role, (groups, tokens) in WORK.items():
        if role == "learner" or row["reward"] is not None:  # gold answers are neither sampled nor scored
            yield "groups_total", {"role": role}, row[groups]
            yield "tokens_total", {"role": role}, row[tokens]


def of_evaluation(row: Row) -> Iterator[Value]:
    """The same of a row of evaluations.jsonl, its percentages as ratios."""
    yield "held_out_reward", {}, row["reward"]
    yield "held_out_words", {}, row["mean_words"]
    floor = row["constant_reply"] or {}
    yield "constant_reply_reward", {}, floor.get("reward")
    for name, figures in (("held_out_score_ratio", row), ("constant_reply_score_ratio", floor)):
        for key in PERCENTAGES:
            if (percentage := figures.get(key)) is not None:
                yield name, {"score": key.replace("@", "_at_")}, percentage / 100


def table() -> str:
    """The table of docs/monitoring.md, checked by tests/cluster/watch/test_monitoring.py."""
    lines = ["| ray_lapdog_... | meaning | labels beside run |", "|---|---|---|"]
    lines += [f"| {each.name} | {each.meaning} | {', '.join(each.labels)} |" for each in SERIES]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
