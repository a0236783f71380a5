"""Settings of the learner, and the stages a run trains in."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from learner.advantage import Scale
from learner.loss import Aggregation, KlEstimator, LossSwitches
from rollout.config import NonNegative, Positive, Section
from rollout.types import Mode

Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]

PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {"aggregation": "sequence", "scale_rewards": "group"},
    "dapo": {"aggregation": "token", "scale_rewards": "group", "eps_high": 0.28, "kl_coef": 0.0},
    "dr_grpo": {"aggregation": "constant", "scale_rewards": "none", "kl_coef": 0.0},
}


class SupervisedSettings(Section):
    steps: NonNegative | None = Field(None, description="updates of stage 1; default: 0 with policy.path, else 1000")
    batch_size: Positive = Field(32, description="gold answers in one update")
    lr: Rate = Field(1e-3, description="peak learning rate")
    lr_warmup_steps: NonNegative = Field(50, description="steps of linear warm-up")


class LearnerSettings(Section):
    """`loss` names a preset of the switches below it; a switch that is set itself wins."""

    steps: NonNegative = Field(200, description="GRPO updates")
    lr: Rate = Field(1e-4, description="peak learning rate of GRPO")
    lr_warmup_steps: NonNegative = Field(5, description="steps of linear warm-up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW's decoupled weight decay")
    max_grad_norm: Rate = Field(1.0, description="gradients are clipped to this norm")
    loss: Literal["grpo", "dapo", "dr_grpo"] = Field("grpo", description="preset of the switches below")
    aggregation: Aggregation | None = Field(None, description="mean over sequences, all tokens, or a constant length")
    eps_low: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="ratios are clipped below 1 - eps_low; 0.2")
    eps_high: Rate | None = Field(None, description="ratios are clipped above 1 + eps_high; 0.2")
    kl_coef: Annotated[float, Field(ge=0)] | None = Field(None, description="weight of the KL to the reference; 0.04")
    kl_estimator: KlEstimator = Field("k3", description="estimator of the KL")
    scale_rewards: Scale | None = Field(None, description="divide advantages by the group's std, the batch's, or not")
    top_k_ratio: Share = Field(1.0, description="share of a group, largest advantages first, that keeps its advantage")
    reference_path: str | None = Field(None, description="folder of the frozen reference; default: the policy after stage 1")
    token_budget: Positive = Field(16384, description="encoder and response tokens in one micro-batch")

    def switches(self) -> LossSwitches:
        return LossSwitches(
            eps_low=self._switch("eps_low", 0.2),
            eps_high=self._switch("eps_high", 0.2),
            aggregation=self._switch("aggregation", "sequence"),
            kl_coef=self._switch("kl_coef", 0.04),
            kl_estimator=self.kl_estimator,
        )

    def advantage_scale(self) -> Scale:
        return self._switch("scale_rewards", "group")

    def _switch(self, name: str, default: Any) -> Any:
        own = getattr(self, name)
        return PRESETS[self.loss].get(name, default) if own is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One of a run's consecutive trainings; steps are counted over the whole run, `first` is this stage's first."""

    name: Literal["supervised", "grpo"]
    mode: Mode
    first: int
    steps: int
    prompts_per_step: int
    lr: float
    lr_warmup_steps: int

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
