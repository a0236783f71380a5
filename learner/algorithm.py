"""Named losses: how the rewards of a batch become advantages, and what is minimised with them. Settings read it: no torch."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

Loss = Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "gspo", "reinforce", "sft"]
Importance = Literal["token", "sequence", "none"]
Surrogate = Literal["clip", "cispo"]
Aggregation = Literal["sequence", "token", "constant"]
KlEstimator = Literal["k1", "k2", "k3"]
KlPlace = Literal["loss", "reward"]
Correction = Literal["none", "truncate", "mask"]
CorrectionLevel = Literal["token", "sequence"]
Baseline = Literal["group", "leave_one_out", "batch", "none"]
Scale = Literal["group", "batch", "none"]
RewardAggregation = Literal["sum_then_normalize", "normalize_then_sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """What `objective.policy_loss` computes; its terms in loss.py explain the fields. The defaults are GRPO's."""

    importance: Importance = "token"
    surrogate: Surrogate = "clip"
    aggregation: Aggregation = "sequence"
    eps_low: float = 0.2
    eps_high: float = 0.2
    kl_coef: float = 0.04
    kl_in: KlPlace = "loss"
    kl_estimator: KlEstimator = "k3"
    kl_weighted: bool = False
    dual_clip: float | None = None
    entropy_coef: float = 0.0
    correction: Correction = "none"
    correction_level: CorrectionLevel = "token"
    correction_cap: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm(LossConfig):
    """All that decides what an update learns from its batch. The defaults are GRPO's, Shao et al. 2024 (arXiv:2402.03300)."""

    baseline: Baseline = "group"
    scale_rewards: Scale = "group"
    reward_aggregation: RewardAggregation = "sum_then_normalize"
    top_k_ratio: float = 1.0
    overlong_buffer: int = 0
    overlong_penalty: float = 1.0
    mask_truncated: bool = False
    passes: int = 1
    kl_target: float | None = None
    reference_every: int = 0

    @property
    def needs_reference(self) -> bool:
        return self.kl_coef > 0

    @property
    def compares_within_group(self) -> bool:
        """Whether advantages need two responses of a prompt or more."""
        own = self.baseline in ("group", "leave_one_out") or self.scale_rewards == "group"
        return own or self.reward_aggregation == "normalize_then_sum"

    def kept_count(self, size: int) -> int:
        """How many of a group of `size` keep their advantage: max(2, ceil(top_k_ratio * size)), but not more than there are."""
        return min(size, max(2, math.ceil(self.top_k_ratio * size - 1e-9)))  # 0.28 * 25 is 7.000000000000001


GRPO = Algorithm()
REINFORCE = replace(GRPO, importance="none", baseline="none", scale_rewards="none", kl_coef=0.0)
PRESETS: dict[Loss, Algorithm] = {
    "grpo": GRPO,
    "dapo": replace(GRPO, aggregation="token", eps_high=0.28, kl_coef=0.0),
    "dr_grpo": replace(GRPO, aggregation="constant", scale_rewards="none", kl_coef=0.0),
    "bnpo": replace(GRPO, aggregation="token"),
    "cispo": replace(GRPO, surrogate="cispo", aggregation="token", eps_low=1.0, eps_high=4.0, kl_coef=0.0),
    "gspo": replace(GRPO, importance="sequence", eps_low=3e-4, eps_high=4e-4, kl_coef=0.0),
    "reinforce": REINFORCE,
    "sft": replace(REINFORCE, aggregation="token"),
}
SUPERVISED = PRESETS["sft"]
CHOSEN_BY_PRESETS = tuple(
    field.name for field in fields(Algorithm) if len({getattr(preset, field.name) for preset in PRESETS.values()}) > 1
)
