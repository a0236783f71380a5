"""Settings of the learner, and the stages a run trains in."""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from learner.algorithm import (
    CHOSEN_BY_PRESETS,
    GRPO,
    PRESETS,
    Aggregation,
    Algorithm,
    Baseline,
    Correction,
    CorrectionLevel,
    Importance,
    KlEstimator,
    KlPlace,
    Loss,
    RewardAggregation,
    Scale,
    Surrogate,
)
from rollout.config import NonNegative, Positive, Section
from rollout.setting_tags import ModelCard, Place
from rollout.types import Mode

AtLeastZero = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
AboveOne = Annotated[float, Field(gt=1)]
Schedule = Literal["linear", "cosine", "constant"]


def without_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted settings of a file but for those that merely say what its `learner.loss` says: they follow another one."""
    loss = values.get("learner.loss", "grpo")
    preset = _preset(loss if loss in get_args(Loss) else "grpo", values.get("learner.kl_in", "loss"))
    said = {f"learner.{name}": getattr(preset, name) for name in (*CHOSEN_BY_PRESETS, "kl_estimator")}
    return {name: value for name, value in values.items() if name not in said or said[name] != value}


def _preset(loss: Loss, kl_in: KlPlace) -> Algorithm:
    """The estimator is the one whose gradient is right there: k1 as a reward is REINFORCE on the KL itself."""
    return replace(PRESETS[loss], kl_in=kl_in, kl_estimator="k1" if kl_in == "reward" else "k3")


class SupervisedSettings(Section):
    steps: Annotated[NonNegative | None, ModelCard(always=True)] = Field(
        None, description="updates of stage 1; default: 0 with policy.path, else 1000"
    )
    batch_size: Positive = Field(32, description="gold answers in one update")
    lr: AboveZero = Field(1e-3, description="peak learning rate of stage 1")
    lr_warmup_steps: NonNegative = Field(50, description="steps of linear warm-up")
    schedule: Schedule = Field("linear", description="how the rate falls after the warm-up: linear, cosine, or constant")
    final_lr_ratio: Ratio = Field(0.1, description="rate of the last step, as a share of lr")


class LearnerSettings(Section):
    """`loss` names a preset of the settings that have no default here; one that is set itself wins."""

    steps: Annotated[NonNegative, ModelCard(always=True)] = Field(200, description="updates of stage 2")
    lr: Annotated[AboveZero, ModelCard(always=True)] = Field(1e-4, description="peak learning rate of stage 2")
    lr_warmup_steps: NonNegative = Field(5, description="steps of linear warm-up")
    schedule: Schedule = Field("linear", description="how the rate falls after the warm-up: linear, cosine, or constant")
    final_lr_ratio: Ratio = Field(0.1, description="rate of the last step, as a share of lr")
    weight_decay: AtLeastZero = Field(0.01, description="AdamW's decoupled weight decay")
    max_grad_norm: AboveZero = Field(1.0, description="gradients are clipped to this norm")
    passes: Positive = Field(GRPO.passes, description="optimiser steps on each batch")
    token_budget: Positive = Field(16384, description="most tokens in one micro-batch; a context counts once for its group")
    activation_checkpointing: bool = Field(
        False, description="keep only the layers' inputs for the backward pass: less memory, slower"
    )
    compile: bool = Field(False, description="let torch compile the layers; needs a C++ compiler, and minutes at the start")

    loss: Annotated[Loss, ModelCard(always=True)] = Field(
        "grpo", description=f"preset of switches: {', '.join(PRESETS)}; sft trains on gold answers"
    )
    importance: Importance | None = Field(None, description="ratio to the sampler: per token, per sequence (GSPO), or none")
    surrogate: Surrogate | None = Field(None, description="clip (PPO) or cispo: clip the ratio, keep every token's gradient")
    aggregation: Aggregation | None = Field(
        None, description="sequence: mean of the responses' means; token: mean of all tokens; constant: sum over a fixed length"
    )
    eps_low: Annotated[Share | None, ModelCard(always=True)] = Field(None, description="ratios below 1 - eps_low are clipped")
    eps_high: Annotated[AboveZero | None, ModelCard(always=True)] = Field(
        None, description="ratios above 1 + eps_high are clipped"
    )
    dual_clip: AboveOne | None = Field(None, description="upper bound of the ratio where the advantage is negative")
    entropy_coef: AtLeastZero = Field(GRPO.entropy_coef, description="weight of the entropy bonus")
    mask_truncated: bool = Field(
        GRPO.mask_truncated, description="responses cut at rollout.max_new_tokens do not count in the loss"
    )

    kl_coef: Annotated[AtLeastZero | None, ModelCard(always=True)] = Field(
        None, description="weight of the KL to the reference; 0.04 in grpo and bnpo, else 0"
    )
    kl_estimator: KlEstimator | None = Field(None, description="estimator of the KL; default: k3 in the loss, k1 in the reward")
    kl_weighted: bool = Field(
        GRPO.kl_weighted, description="multiply the KL in the loss by policy / sampler; k1 and k3 are then unbiased"
    )
    kl_in: KlPlace = Field(GRPO.kl_in, description="add the KL to the loss, or subtract it from the reward")
    kl_target: AboveZero | None = Field(None, description="target of the KL in nats a token; kl_coef is adapted to reach it")
    reference_path: Annotated[str | None, Place()] = Field(
        None, description="folder or hub name of the frozen reference; default: the policy after stage 1"
    )
    reference_every: NonNegative = Field(
        GRPO.reference_every, description="set the reference to the policy every so many updates; 0: never"
    )

    baseline: Baseline | None = Field(
        None,
        description="what is subtracted from a reward: the mean of the group, of the group's others (leave_one_out), "
        "of the batch, or nothing (none)",
    )
    scale_rewards: Scale | None = Field(
        None, description="divide advantages by the std of the group, of the batch, or not (none)"
    )
    reward_aggregation: RewardAggregation = Field(
        GRPO.reward_aggregation,
        description="sum rewards, then normalise; or normalize_then_sum: normalise each in its group first (GDPO)",
    )
    top_k_ratio: Share = Field(
        GRPO.top_k_ratio, description="share of each group, by largest |advantage|, that keeps its advantage"
    )
    overlong_buffer: NonNegative = Field(
        GRPO.overlong_buffer, description="last tokens before rollout.max_new_tokens that cost reward; 0: off"
    )
    overlong_penalty: AboveZero = Field(GRPO.overlong_penalty, description="reward that a response of full length loses")

    correction: Correction = Field(GRPO.correction, description="importance weights for stale samples: none, truncate or mask")
    correction_level: CorrectionLevel = Field(
        GRPO.correction_level, description="one weight per token, or their product over the sequence"
    )
    correction_cap: AboveZero = Field(GRPO.correction_cap, description="weights above it are truncated or masked")

    def algorithm(self) -> Algorithm:
        """The preset, but for what is set."""
        own = {field.name: getattr(self, field.name) for field in fields(Algorithm)}
        return replace(_preset(self.loss, self.kl_in), **{name: value for name, value in own.items() if value is not None})

    def needs_reference(self) -> bool:
        return self.loss != "sft" and self.algorithm().needs_reference

    def compares_within_group(self) -> bool:
        """Whether a prompt needs two responses or more."""
        return self.loss != "sft" and self.algorithm().compares_within_group

    def as_used(self, idle: Collection[str]) -> "LearnerSettings":
        """The same with what the preset says written out, but for settings without effect."""
        used = {field.name: getattr(self.algorithm(), field.name) for field in fields(Algorithm) if field.name not in idle}
        return self.with_values(**used)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One of a run's consecutive trainings; steps are counted over the whole run, `first` is this stage's first."""

    name: Literal["supervised", "rl"]
    mode: Mode
    first: int
    steps: int
    prompts_per_step: int
    lr: float
    lr_warmup_steps: int
    schedule: Schedule = "linear"
    final_lr_ratio: float = 0.1

    @property
    def sampled(self) -> bool:
        """Whether the policy draws the responses, which are then rewarded; gold answers do not depend on it."""
        return self.mode == "sample"

    @property
    def last(self) -> int:
        return self.first + self.steps - 1

    def lr_at(self, step: int) -> float:
        """Linear warm-up to `lr`, then by the schedule to `final_lr_ratio` of it at the last step."""
        done = step - self.first
        if done < self.lr_warmup_steps:
            return self.lr * (done + 1) / self.lr_warmup_steps
        if self.schedule == "constant":
            return self.lr
        decay = min(1.0, (done - self.lr_warmup_steps) / max(1, self.steps - 1 - self.lr_warmup_steps))
        if self.schedule == "cosine":
            decay = (1 - math.cos(math.pi * decay)) / 2
        return self.lr * (1 - (1 - self.final_lr_ratio) * decay)
