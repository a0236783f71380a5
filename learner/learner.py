"""The learner: policy, frozen reference and optimiser; update, weights, save, restore."""

import contextlib
import math
import resource
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from learner.advantage import group_advantages, keep_largest, zero_variance
from learner.batch import MicroBatch, micro_batches, response_lengths
from learner.config import LearnerSettings, Stage
from learner.loss import LossStatistics, LossSwitches, policy_loss, token_weights
from learner.optimizer import load_optimizer, new_optimizer, save_optimizer
from rollout.config import PolicySettings, RolloutSettings
from rollout.policy.interface import Policy
from rollout.policy.loading import DTYPES, load_policy
from rollout.types import Group, PromptKey

SUPERVISED = LossSwitches(importance_ratio=False, aggregation="token")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetrics:
    """What one update did. Means over the batch's tokens (kl, clip_fraction, entropy) or groups; None where undefined."""

    loss: float
    reward: float | None
    reward_std: float | None
    reward_parts: dict[str, float]
    kl: float
    clip_fraction: float
    entropy: float
    ratio_max: float
    grad_norm: float
    lr: float
    zero_variance: float
    truncated: float
    response_tokens: int
    skipped: int
    peak_memory_mb: float
    skipped_prompts: tuple[PromptKey, ...] = ()


class Learner:
    def __init__(self, policy: Policy, settings: LearnerSettings, rollout: RolloutSettings, policy_settings: PolicySettings):
        self.policy, self.settings, self.rollout, self.policy_settings = policy, settings, rollout, policy_settings
        self.device = str(policy.model.device)
        self.dtype = DTYPES[policy_settings.dtype]
        self.reference: Policy | None = None

    def begin(self, stage: Stage, reference: str | Path | None = None) -> None:
        """Start a stage: a new optimiser, and for GRPO the reference, which is the policy as it stands now."""
        self.stage = stage
        self.switches = SUPERVISED if stage.mode == "gold" else self.settings.switches()
        self.optimizer = new_optimizer(self.policy.model, self.settings.weight_decay)
        if stage.mode == "gold" or self.switches.kl_coef == 0:
            self.reference = None
        elif (path := reference or self.settings.reference_path) is not None:
            self.reference = self._load(path)
        else:
            self.reference = self.policy.frozen_copy()

    def update(self, groups: Sequence[Group], step: int) -> tuple[UpdateMetrics, torch.Tensor]:
        """One optimiser step on a batch of groups; also the advantages [P, G].

        A loss or gradient that is not finite leaves the weights as they are: `skipped` is 1 and the prompts are named.
        """
        rewards, advantages = self._advantages(groups)
        loss, statistics = self._gradients(groups, advantages)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), self.settings.max_grad_norm))
        lr = self.stage.lr_at(step)
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if finite:
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = lr
            self.optimizer.step()
        responses = [r for group in groups for r in group.responses]
        metrics = UpdateMetrics(
            loss=loss,
            reward=None if rewards is None else float(rewards.mean()),
            reward_std=None if rewards is None else float(rewards.std(-1).mean()),
            reward_parts=_mean_parts(groups),
            kl=statistics.mean(statistics.kl),
            clip_fraction=statistics.mean(statistics.clipped),
            entropy=statistics.mean(statistics.entropy),
            ratio_max=statistics.ratio_max,
            grad_norm=grad_norm,
            lr=lr,
            zero_variance=0.0 if rewards is None else float(zero_variance(rewards).float().mean()),
            truncated=sum(not r.finished for r in responses) / len(responses),
            response_tokens=int(statistics.tokens),
            skipped=int(not finite),
            peak_memory_mb=_peak_memory_mb(self.device),
            skipped_prompts=() if finite else tuple(group.prompt.key for group in groups),
        )
        return metrics, advantages

    def weights(self) -> np.ndarray:
        """The policy as one flat array in the samplers' dtype."""
        return self.policy.weights(self.dtype)

    def save(self, folder: Path) -> None:
        """Write policy/, reference/ (if there is one) and the optimiser's state."""
        self.policy.save(folder / "policy")
        if self.reference is not None:
            self.reference.save(folder / "reference")
        save_optimizer(self.optimizer, self.policy.model.named_parameters(), folder / "optimizer.safetensors")

    def restore(self, folder: Path, stage: Stage) -> None:
        """Go on from a folder written by `save` in the same stage."""
        self.policy = self._load(folder / "policy")
        self.begin(stage, folder / "reference")
        load_optimizer(self.optimizer, self.policy.model.named_parameters(), folder / "optimizer.safetensors")

    def _advantages(self, groups: Sequence[Group]) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Rewards and advantages [P, G]; a gold answer has no reward and advantage 1."""
        if self.stage.mode == "gold":
            return None, torch.ones(len(groups), 1)
        rewards = torch.from_numpy(np.stack([_scored(group) for group in groups]))
        advantages = group_advantages(rewards, self.settings.advantage_scale())
        return rewards, keep_largest(advantages, self.settings.top_k_ratio)

    def _gradients(self, groups: Sequence[Group], advantages: torch.Tensor) -> tuple[float, LossStatistics]:
        """Accumulate the whole batch's gradient; its loss and statistics."""
        weights = token_weights(response_lengths(groups), self.switches.aggregation, self.rollout.max_new_tokens)
        self.optimizer.zero_grad(set_to_none=True)
        loss, statistics = 0.0, LossStatistics()
        for micro in micro_batches(groups, advantages, weights, self.settings.token_budget, self.device):
            part, counted = self._backward(micro)
            loss, statistics = loss + part, statistics + counted
        return loss, statistics

    def _backward(self, micro: MicroBatch) -> tuple[float, LossStatistics]:
        shape, temperature = micro.mask.shape, 1.0 if self.stage.mode == "gold" else self.rollout.temperature
        with self._autocast():
            scores = self.policy.score(micro.contexts, micro.response_ids, temperature)
            reference = None
            if self.reference is not None:
                with torch.no_grad():
                    reference = self.reference.score(micro.contexts, micro.response_ids, temperature).logprobs.view(shape)
        loss, statistics = policy_loss(
            scores.logprobs.view(shape),
            micro.sampler_logprobs,
            reference,
            micro.advantages,
            micro.weights,
            micro.mask,
            self.switches,
        )
        loss.backward()
        entropy = float(scores.entropy.view(shape).masked_fill(~micro.mask, 0.0).sum())
        return float(loss.detach()), replace(statistics, entropy=entropy)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.policy.model.device.type, self.dtype)

    def _load(self, path: str | Path) -> Policy:
        return load_policy(path, self.policy_settings, torch.float32, self.device)


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _scored(group: Group) -> np.ndarray:
    assert group.rewards is not None, f"prompt {group.prompt.key} came without rewards"
    return group.rewards


def _mean_parts(groups: Sequence[Group]) -> dict[str, float]:
    return {name: float(np.mean([group.reward_parts[name] for group in groups])) for name in groups[0].reward_parts}
