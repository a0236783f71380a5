"""Every figure of a run, once: lines of metrics.jsonl and evaluations.jsonl, their documentation, Prometheus' series and the
report's charts derive from two tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cluster.actors.roles import RoleKind
from cluster.settings.markdown import table
from cluster.store.rows import Row

Section = Literal["Reward", "Policy", "Optimiser", "Throughput", "Seconds", "Incidents"]
Exports = tuple[tuple[str, dict[str, str]], ...]
SECTIONS: tuple[Section, ...] = get_args(Section)
OWN = "extra/"  # begins the names of a user's own rewards
OF_SAMPLED = "null where gold answers are trained on"


@dataclass(frozen=True, slots=True)
class Chart:
    """One of the report's. exact: not smoothed. over_steps: what becomes of several steps that are one point."""

    section: Section
    title: str
    exact: bool = False
    over_steps: Literal["mean", "max", "sum"] = "mean"


def incidents(title: str) -> Chart:
    return Chart("Incidents", title, exact=True, over_steps="sum")


def to(series: str, **labels: str) -> Exports:
    """Where Prometheus sees a figure: a series, a counter if its name ends in _total, else a gauge; labels beside `run`."""
    return ((series, labels),)


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of metrics.jsonl. note: what its documentation adds. over_calls: how the figures that a step's calls to samplers
    and reward actors report become one; None for what arises once a step. of_responses: there is none where gold answers are
    trained on, whatever the row says."""

    name: str
    meaning: str
    chart: Chart | None = None
    exports: Exports = ()
    unit: str = ""
    note: str = ""
    over_calls: Literal["sum", "mean", "min", "max"] | None = None
    of_responses: bool = False

    def value(self, row: Row) -> Any:
        return None if self.of_responses and row.get("reward") is None else row.get(self.name)


TOGETHER: dict[str, Callable[[list[float]], float | None]] = {
    "sum": sum,
    "mean": lambda figures: sum(figures) / len(figures) if figures else None,
    "min": lambda figures: min(figures, default=None),
    "max": lambda figures: max(figures, default=None),
}
# fmt: off
METRICS = (
    Metric("step", "number of the step", exports=to("step"), note="counts on over both stages"),
    Metric("time", "when the step was finished", exports=to("last_step_timestamp_seconds"), unit="seconds since 1970"),
    Metric("incarnation", "how often the run was resumed or its learner replaced", exports=to("incarnation")),
    Metric("stage", "supervised, or rl whatever `learner.loss`"),
    Metric("epoch", "epoch of the newest prompt in the batch", exports=to("epoch"), note="requeued ones may be older"),
    Metric("loss", "what was minimised", Chart("Optimiser", "Loss"), to("loss"),
           note="with several `learner.passes` it, and all figures of tokens, are means over them"),
    Metric("reward", "mean reward of the batch's responses", Chart("Reward", "Reward"), to("reward"), note=OF_SAMPLED),
    Metric("reward_std", "standard deviation of the rewards within a group, mean over groups: what GRPO learns from",
           Chart("Reward", "Spread within a group"), to("reward_std"), note=OF_SAMPLED),
    Metric("f1", "mean F1, a part of the reward, 0 to 1", Chart("Reward", "F1"), to("reward_part", part="f1")),
    Metric("rougeL", "mean ROUGE-L, a part of the reward, 0 to 1", Chart("Reward", "ROUGE-L"),
           to("reward_part", part="rougeL")),
    Metric("bleu", "mean BLEU, a part of the reward, 0 to 1", Chart("Reward", "BLEU"), to("reward_part", part="bleu")),
    Metric("extra/NAME", "mean of your own reward", Chart("Reward", "extra/NAME"), to("reward_part", part="extra/NAME"),
           note="over the responses that it applies to"),
    Metric("kl", "estimated KL from policy to reference", Chart("Policy", "KL to the reference"), to("kl_nats_per_token"),
           unit="nats a token", note="see `learner.kl_estimator`; null without a reference"),
    Metric("kl_coef", "weight of the KL to the reference", exports=to("kl_coef"), note="null without a reference"),
    Metric("kl_to_sampler", "KL from sampler to policy: how far the weights have moved", Chart("Policy", "KL to the sampler"),
           to("kl_to_sampler_nats_per_token"), unit="nats a token", note="estimated by k3"),
    Metric("clip_fraction", "share of tokens whose probability ratio was clipped", Chart("Policy", "Clipped tokens"),
           to("clipped_tokens_ratio")),
    Metric("corrected", "share of tokens whose off-policy correction met its cap", exports=to("corrected_tokens_ratio")),
    Metric("entropy", "entropy of the policy", Chart("Policy", "Entropy"), to("entropy_nats_per_token"), unit="nats a token"),
    Metric("ratio_p01", "probability ratio policy / sampler of a token: first percentile",
           exports=to("policy_to_sampler_ratio", quantile="0.01")),
    Metric("ratio_p50", "its median", exports=to("policy_to_sampler_ratio", quantile="0.5")),
    Metric("ratio_p99", "its 99th percentile", exports=to("policy_to_sampler_ratio", quantile="0.99")),
    Metric("ratio_max", "largest probability ratio policy / sampler of a token",
           Chart("Policy", "Largest ratio", over_steps="max"), to("policy_to_sampler_ratio", quantile="1")),
    Metric("grad_norm", "gradient norm before clipping", Chart("Optimiser", "Gradient norm", over_steps="max"), to("grad_norm"),
           note="the largest of several `learner.passes`"),
    Metric("lr", "learning rate as used", Chart("Optimiser", "Learning rate", exact=True), to("learning_rate")),
    Metric("staleness_mean", "mean age of the batch's responses between sampling and training",
           Chart("Throughput", "Staleness"), to("staleness_steps", statistic="mean"), unit="versions", of_responses=True),
    Metric("staleness_max", "largest of these ages", exports=to("staleness_steps", statistic="max"), unit="versions",
           of_responses=True),
    Metric("zero_variance", "share of groups whose rewards are all equal: they teach nothing",
           Chart("Reward", "Groups without spread"), to("zero_variance_groups_ratio"), note="as scored", of_responses=True),
    Metric("filtered", "groups replaced because their rewards are all equal", exports=to("filtered_groups_total"),
           note="sampled in addition, see `rollout.dynamic_sampling`"),
    Metric("truncated", "share of responses cut at rollout.max_new_tokens; in stage 1 of the gold answers",
           Chart("Policy", "Cut responses"), to("truncated_responses_ratio")),
    Metric("response_tokens", "response tokens of the batch", exports=to("tokens_total", role=RoleKind.LEARNER)),
    Metric("top_p_mass", "probability inside the nucleus; 1 unless rollout.top_p is below 1", exports=to("top_p_mass_ratio"),
           over_calls="min"),
    Metric("tokens_per_s", "response tokens a second, over the wall time of the step", Chart("Throughput", "Response tokens")),
    Metric("groups_per_s", "groups a second, over the wall time of the step", Chart("Throughput", "Groups")),
    Metric("trained_groups", "groups in the batch", exports=to("groups_total", role=RoleKind.LEARNER)),
    Metric("sampled_groups", "groups that samplers finished during the step, trained on or not", over_calls="sum",
           exports=to("groups_total", role=RoleKind.SAMPLER) + to("groups_total", role=RoleKind.REWARD), of_responses=True),
    Metric("sampled_tokens", "tokens of their responses", over_calls="sum",
           exports=to("tokens_total", role=RoleKind.SAMPLER) + to("tokens_total", role=RoleKind.REWARD), of_responses=True),
    Metric("seconds_sample", "time of sampling, summed over the samplers", Chart("Seconds", "Sampling"),
           to("phase_seconds_total", phase="sample"), unit="seconds", over_calls="sum"),
    Metric("seconds_reward", "time of scoring, summed over the reward actors", Chart("Seconds", "Scoring"),
           to("phase_seconds_total", phase="reward"), unit="seconds", over_calls="sum", of_responses=True),
    Metric("seconds_update", "time of the learner", Chart("Seconds", "Update"), to("phase_seconds_total", phase="update"),
           unit="seconds"),
    Metric("seconds_sync", "time that samplers took to take in weights, summed over samplers",
           Chart("Seconds", "Taking weights"), to("weight_sync_seconds_total"), unit="seconds", over_calls="sum",
           of_responses=True),
    Metric("bytes_sync", "weights that samplers took in, summed over samplers", exports=to("weight_sync_bytes_total"),
           unit="bytes", over_calls="sum"),
    Metric("seconds_step", "wall time of the step", Chart("Seconds", "Step"), to("phase_seconds_total", phase="step"),
           unit="seconds"),
    Metric("skipped", "updates left out because loss or gradient was not finite", incidents("Steps skipped"),
           to("skipped_updates_total"), note="0 or 1: that pass over the batch and those after it"),
    Metric("requeued", "groups too old to be trained on; their prompts were queued again", incidents("Prompts sampled again"),
           to("requeued_groups_total")),
    Metric("padding_update", "share of the tokens that the learner computed that are padding",
           exports=to("padding_ratio", role=RoleKind.LEARNER), note="contexts and responses"),
    Metric("padding_sample", "share of the tokens that samplers computed that are padding",
           exports=to("padding_ratio", role=RoleKind.SAMPLER), note="contexts alone", over_calls="mean"),
    Metric("peak_memory_mb", "peak memory of the learner: of its GPU if it has one, else resident",
           Chart("Throughput", "Learner's memory", exact=True), to("peak_memory_bytes", role=RoleKind.LEARNER), unit="MB"),
    Metric("peak_memory_mb_sampler", "peak memory of the sampler that held most: of its GPU if it has one, else resident",
           Chart("Throughput", "Samplers' memory", exact=True), to("peak_memory_bytes", role=RoleKind.SAMPLER), unit="MB",
           over_calls="max"),
    Metric("restarts", "actors that were replaced", incidents("Actors replaced")),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class HeldOutFigure:
    """A column of evaluations.jsonl. series: of Prometheus, after held_out_ or constant_reply_. column: of the tables that a
    terminal, the report and a model card show. of_vectors: told only where passages are found by these."""

    name: str
    meaning: str
    series: str = "score_ratio"
    is_percentage: bool = True
    column: bool = False
    of_vectors: bool = False


HELD_OUT = (
    HeldOutFigure("reward", "mean training reward of the replies", "reward", is_percentage=False, column=True),
    HeldOutFigure(
        "f1", "F1, normalised, in English as SQuAD does: mean over examples of the best over its answers", column=True
    ),
    HeldOutFigure("rouge1", "ROUGE-1, likewise"),
    HeldOutFigure("rouge2", "ROUGE-2, likewise"),
    HeldOutFigure("rougeL", "ROUGE-L, likewise", column=True),
    HeldOutFigure("bleu", "corpus BLEU (sacrebleu) against all answers; null where no reply has four tokens", column=True),
    HeldOutFigure("exact_match", "exact match, normalised and taken over answers as F1", column=True),
    HeldOutFigure("distinct1", "distinct words over all words of the replies"),
    HeldOutFigure("distinct2", "distinct pairs of words over all pairs", column=True),
    HeldOutFigure("unique_replies", "share of distinct replies", column=True),
    HeldOutFigure(
        "mean_words", "mean length of a reply; where no spaces part words, a character is one", "words", is_percentage=False
    ),
    HeldOutFigure("recall@1", "share of examples with a gold passage first among those found; null where no gold is known"),
    HeldOutFigure("recall@5", "the same among the first five", column=True),
    HeldOutFigure("recall@20", "the same among the first twenty"),
    *(
        HeldOutFigure(f"recall_{part}@{depth}", f"of a hybrid: among the first {depth} by {score} alone", of_vectors=True)
        for part, score in (("lexical", "BM25"), ("dense", "vectors"))
        for depth in (1, 5, 20)
    ),
    HeldOutFigure(
        "gap_closed",
        "what the retriever's passages earn beyond BM25's, over what gold ones earn beyond them; where `readings` tell both",
        column=True,
        of_vectors=True,
    ),
)
EVALUATION_COLUMNS = tuple(each.name for each in HELD_OUT if each.column)


def columns(names: Iterable[str] = ()) -> list[Metric]:
    """The metrics of a row, in its order; in place of the pattern of a user's own rewards those among `names`."""

    def named(metric: Metric) -> list[Metric]:
        if not metric.name.startswith(OWN):
            return [metric]
        own = [name for name in names if name.startswith(OWN)]
        return [replace(metric, name=name, chart=Chart("Reward", name), exports=to("reward_part", part=name)) for name in own]

    return [each for metric in METRICS for each in named(metric)]


def metrics_line(once: Row, calls: Sequence[Mapping[str, float]]) -> Row:
    """A line of metrics.jsonl, from what arises once a step and what its calls report.

    Raises ValueError for a figure that is no metric's: a mistake of ours, which would else be lost.
    """
    table = columns(once)
    of_calls = {metric.name for metric in table if metric.over_calls is not None}
    of_steps = {metric.name for metric in table} - of_calls
    if unknown := (once.keys() - of_steps) | ({name for figures in calls for name in figures} - of_calls):
        raise ValueError(f"{', '.join(sorted(unknown))}: cluster/store/metrics.py has no metric that arises so; add it there")
    reported = {name: [figures[name] for figures in calls if name in figures] for name in of_calls}
    return {
        metric.name: once[metric.name] if metric.over_calls is None else TOGETHER[metric.over_calls](reported[metric.name])
        for metric in table
    }


def documented() -> str:
    """The tables of docs/run-folder.md."""
    rows = (
        (each.name, "; ".join(filter(None, (each.meaning, each.note))), each.unit, each.over_calls or "") for each in METRICS
    )
    lines = table(["key", "meaning", "unit", "of the step's calls"], rows)
    return f"{lines}\n{table(['key', 'meaning'], ((each.name, each.meaning) for each in HELD_OUT))}"


if __name__ == "__main__":
    print(documented(), end="")
