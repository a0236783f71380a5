"""Settings of the learner, and the stages a run trains in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from learner.advantage import Baseline, RewardAggregation, Scale
from learner.loss import Aggregation, Correction, CorrectionLevel, Importance, KlEstimator, LossSwitches, Surrogate
from rollout.config import NonNegative, Positive, Section
from rollout.types import Mode

AtLeastZero = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
AboveOne = Annotated[float, Field(gt=1)]

Loss = Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "gspo", "reinforce", "sft"]

GRPO: dict[str, Any] = {
    "importance": "token",
    "surrogate": "clip",
    "aggregation": "sequence",
    "eps_low": 0.2,
    "eps_high": 0.2,
    "kl_coef": 0.04,
    "baseline": "group",
    "scale_rewards": "group",
}
WITHOUT_RATIO = {"importance": "none", "baseline": "none", "scale_rewards": "none", "kl_coef": 0.0}
PRESETS: dict[str, dict[str, Any]] = {
    "grpo": GRPO,
    "dapo": GRPO | {"aggregation": "token", "eps_high": 0.28, "kl_coef": 0.0},
    "dr_grpo": GRPO | {"aggregation": "constant", "scale_rewards": "none", "kl_coef": 0.0},
    "bnpo": GRPO | {"aggregation": "token"},
    "cispo": GRPO | {"surrogate": "cispo", "aggregation": "token", "eps_low": 1.0, "eps_high": 4.0, "kl_coef": 0.0},
    "gspo": GRPO | {"importance": "sequence", "eps_low": 3e-4, "eps_high": 4e-4, "kl_coef": 0.0},
    "reinforce": GRPO | WITHOUT_RATIO,
    "sft": GRPO | WITHOUT_RATIO | {"aggregation": "token"},
}


def without_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted settings of a file but for the switches that merely say what its `learner.loss` says: they follow another one."""
    estimator = "k1" if values.get("learner.kl_in") == "reward" else "k3"
    preset = PRESETS.get(values.get("learner.loss", "grpo"), {}) | {"kl_estimator": estimator}
    said = {f"learner.{name}": value for name, value in preset.items()}
    return {name: value for name, value in values.items() if name not in said or said[name] != value}


class SupervisedSettings(Section):
    steps: NonNegative | None = Field(None, description="updates of stage 1; default: 0 with policy.path, else 1000")
    batch_size: Positive = Field(32, description="gold answers in one update")
    lr: AboveZero = Field(1e-3, description="peak learning rate; it falls linearly to a tenth at the last step")
    lr_warmup_steps: NonNegative = Field(50, description="steps of linear warm-up")


class LearnerSettings(Section):
    """`loss` names a preset of switches (those without a default here); a switch that is set itself wins."""

    steps: NonNegative = Field(200, description="GRPO updates")
    lr: AboveZero = Field(1e-4, description="peak learning rate of GRPO; it falls linearly to a tenth at the last step")
    lr_warmup_steps: NonNegative = Field(5, description="steps of linear warm-up")
    weight_decay: AtLeastZero = Field(0.01, description="AdamW's decoupled weight decay")
    max_grad_norm: AboveZero = Field(1.0, description="gradients are clipped to this norm")
    passes: Positive = Field(1, description="optimiser steps on each batch")
    token_budget: Positive = Field(16384, description="most tokens in one micro-batch; a context counts once for its group")
    activation_checkpointing: bool = Field(
        False, description="keep only the layers' inputs for the backward pass: less memory, slower"
    )
    compile: bool = Field(False, description="let torch compile the layers; needs a C++ compiler, and minutes at the start")

    loss: Loss = Field("grpo", description=f"preset of switches: {', '.join(PRESETS)}; sft trains on gold answers")
    importance: Importance | None = Field(None, description="ratio to the sampler: per token, per sequence (GSPO), or none")
    surrogate: Surrogate | None = Field(None, description="clip (PPO) or cispo: clip the ratio, keep every token's gradient")
    aggregation: Aggregation | None = Field(
        None, description="sequence: mean of the responses' means; token: mean of all tokens; constant: sum over a fixed length"
    )
    eps_low: Share | None = Field(None, description="ratios below 1 - eps_low are clipped")
    eps_high: AboveZero | None = Field(None, description="ratios above 1 + eps_high are clipped")
    dual_clip: AboveOne | None = Field(None, description="upper bound of the ratio where the advantage is negative")
    entropy_coef: AtLeastZero = Field(0.0, description="weight of the entropy bonus")
    mask_truncated: bool = Field(False, description="responses cut at rollout.max_new_tokens do not count in the loss")

    kl_coef: AtLeastZero | None = Field(None, description="weight of the KL to the reference; 0.04 in grpo and bnpo, else 0")
    kl_estimator: KlEstimator | None = Field(None, description="estimator of the KL; default: k3 in the loss, k1 in the reward")
    kl_weighted: bool = Field(False, description="multiply the KL in the loss by policy / sampler; k1 and k3 are then unbiased")
    kl_in: Literal["loss", "reward"] = Field("loss", description="add the KL to the loss, or subtract it from the reward")
    kl_target: AboveZero | None = Field(None, description="target of the KL in nats a token; kl_coef is adapted to reach it")
    reference_path: str | None = Field(
        None, description="folder or hub name of the frozen reference; default: the policy after stage 1"
    )
    reference_every: NonNegative = Field(0, description="set the reference to the policy every so many updates; 0: never")

    baseline: Baseline | None = Field(
        None,
        description="what is subtracted from a reward: the mean of the group, of the group's others (leave_one_out), "
        "of the batch, or nothing (none)",
    )
    scale_rewards: Scale | None = Field(
        None, description="divide advantages by the std of the group, of the batch, or not (none)"
    )
    reward_aggregation: RewardAggregation = Field(
        "sum_then_normalize",
        description="sum rewards, then normalise; or normalize_then_sum: normalise each in its group first (GDPO)",
    )
    top_k_ratio: Share = Field(1.0, description="share of each group, by largest |advantage|, that keeps its advantage")
    overlong_buffer: NonNegative = Field(0, description="last tokens before rollout.max_new_tokens that cost reward; 0: off")
    overlong_penalty: AboveZero = Field(1.0, description="reward that a response of full length loses")

    correction: Correction = Field("none", description="importance weights for stale samples: none, truncate or mask")
    correction_level: CorrectionLevel = Field("token", description="one weight per token, or their product over the sequence")
    correction_cap: AboveZero = Field(2.0, description="weights above it are truncated or masked")

    def switch(self, name: str) -> Any:
        """The setting, or what the preset says where it is not set."""
        own = getattr(self, name)
        if own is not None:
            return own
        return self.default_estimator if name == "kl_estimator" else PRESETS[self.loss][name]

    @property
    def default_estimator(self) -> KlEstimator:
        """The one whose gradient is right there: k1 as a reward is REINFORCE on the KL itself."""
        return "k1" if self.kl_in == "reward" else "k3"

    def loss_switches(self) -> LossSwitches:
        from_preset = ("importance", "surrogate", "aggregation", "eps_low", "eps_high", "kl_estimator")
        plain = ("dual_clip", "kl_weighted", "entropy_coef", "correction", "correction_level", "correction_cap")
        return LossSwitches(
            **{name: self.switch(name) for name in from_preset},
            **{name: getattr(self, name) for name in plain},
            kl_coef=self.switch("kl_coef") if self.kl_in == "loss" else 0.0,
        )

    def supervised(self) -> "LearnerSettings":
        """What stage 1 is trained with: cross-entropy on gold answers, whatever the second stage's loss."""
        return LearnerSettings(loss="sft", **{name: getattr(self, name) for name in OF_BOTH_STAGES})

    def needs_reference(self) -> bool:
        return self.loss != "sft" and self.switch("kl_coef") > 0

    def compares_within_group(self) -> bool:
        """Whether advantages need two responses of a prompt or more."""
        own = self.switch("baseline") in ("group", "leave_one_out") or self.switch("scale_rewards") == "group"
        return self.loss != "sft" and (own or self.reward_aggregation == "normalize_then_sum")

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Settings that were changed and that nothing will read, each with what takes its effect away."""
        for names, effective, cause in self._conditions():
            for name in names if not effective else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield name, cause

    def resolved(self) -> "LearnerSettings":
        """The same with the preset's switches written out, but for those without effect."""
        idle = {name for names, effective, _ in self._conditions() if not effective for name in names}
        return self.model_copy(update={name: self.switch(name) for name in (*GRPO, "kl_estimator") if name not in idle})

    def _conditions(self) -> Iterator[tuple[tuple[str, ...], bool, str]]:
        """Settings, whether they have an effect, and if not, because of what."""
        rewarded = tuple(name for name in type(self).model_fields if name not in OF_ANY_LOSS)
        yield rewarded, self.loss != "sft", "learner.loss sft"
        clipped = ("surrogate", "eps_low", "eps_high", "dual_clip")
        yield clipped, self.switch("importance") != "none", "learner.importance none"
        moves = self.correction == "none" or self.passes > 1
        yield clipped, moves, f"learner.correction {self.correction} and learner.passes 1, where the ratio stays 1"
        yield ("dual_clip",), self.switch("surrogate") == "clip", "learner.surrogate cispo"
        with_reference = ("kl_estimator", "kl_weighted", "kl_in", "kl_target", "reference_path", "reference_every")
        yield with_reference, self.needs_reference(), "learner.kl_coef 0"
        yield ("kl_weighted",), self.kl_in == "loss", "learner.kl_in reward"
        summed = self.reward_aggregation == "sum_then_normalize"
        yield ("baseline", "scale_rewards", "kl_in"), summed, "learner.reward_aggregation normalize_then_sum"
        yield ("overlong_penalty",), self.overlong_buffer > 0, "learner.overlong_buffer 0"
        yield ("correction_level", "correction_cap"), self.correction != "none", "learner.correction none"


OF_BOTH_STAGES = ("weight_decay", "max_grad_norm", "token_budget", "activation_checkpointing", "compile")
OF_ANY_LOSS = {
    *OF_BOTH_STAGES,
    *("steps", "lr", "lr_warmup_steps", "passes"),
    *("loss", "aggregation", "entropy_coef", "mask_truncated"),
}


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

    @property
    def sampled(self) -> bool:
        """Whether the policy draws the responses, which are then rewarded; gold answers do not depend on it."""
        return self.mode == "sample"

    @property
    def last(self) -> int:
        return self.first + self.steps - 1

    def lr_at(self, step: int) -> float:
        """Linear warm-up to `lr`, then linear decay to a tenth of it at the last step."""
        done = step - self.first
        if done < self.lr_warmup_steps:
            return self.lr * (done + 1) / self.lr_warmup_steps
        decay = (done - self.lr_warmup_steps) / max(1, self.steps - 1 - self.lr_warmup_steps)
        return self.lr * (1 - 0.9 * min(1.0, decay))
