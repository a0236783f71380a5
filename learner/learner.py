"""The learner: policy, frozen reference and optimiser; update, weights, save, restore."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from learner.algorithm import SUPERVISED, Algorithm
from learner.batch import MicroBatch, counted_lengths, micro_batches
from learner.batch_advantages import advantages_of, rewards_of, sequence_kl
from learner.config import LearnerSettings, Stage
from learner.loss import adapted_kl_coef, token_weights
from learner.objective import TokenStatistics, policy_loss
from learner.optimizer import load_optimizer, new_optimizer, save_optimizer
from learner.update_metrics import PassOutcome, UpdateMetrics, update_metrics
from rollout.config import PolicySettings, RolloutSettings
from rollout.errors import CheckpointError, SettingsError
from rollout.peak_memory import peak_memory_mb
from rollout.policy import adapters
from rollout.policy.interface import Trainable
from rollout.policy.loading import DTYPES, load_policy
from rollout.policy.weights import FlatWeights, wire_buffer
from rollout.types import Group

STATE = "learner.json"


class Learner:
    """reward_weights: those of the reward's parts, which normalize_then_sum normalises one by one."""

    def __init__(
        self,
        policy: Trainable,
        settings: LearnerSettings,
        rollout: RolloutSettings,
        policy_settings: PolicySettings,
        reward_weights: Mapping[str, float],
    ):
        self.settings, self.rollout, self.policy_settings = settings, rollout, policy_settings
        self.policy = self._prepared(policy)
        self.reward_weights = reward_weights
        self.device = str(policy.device)
        self.dtype = DTYPES[policy_settings.dtype]
        self.reference: Trainable | None = None
        self._wire = wire_buffer(self.policy.trained_parameters().values(), self.dtype)

    def begin(self, stage: Stage, saved: Path | None = None) -> None:
        """Start a stage: a new optimiser, and the reference where one is needed, which is the policy as it stands now.

        saved: a folder written by `save`, whose reference is taken.
        """
        self.stage = stage
        self.algorithm = self._algorithm_of(stage)
        self.optimizer = new_optimizer(self.policy.trained_parameters().values(), self.settings.weight_decay)
        if not self.algorithm.needs_reference:
            self.reference = None
        elif saved is not None:
            shared = adapters.share_base(saved / "reference", saved / "policy")
            model_of = self.policy_settings.path if shared else self.settings.reference_path
            self.reference = self._compiled(self._loaded_reference(saved / "reference", model_of))
        elif (path := self.settings.reference_path) is not None:
            self.reference = self._compiled(self._loaded_reference(path))
        else:
            self.reference = self._compiled(self.policy.frozen_copy())

    def update(self, groups: Sequence[Group], step: int) -> tuple[UpdateMetrics, torch.Tensor]:
        """Train on a batch of groups, `passes` optimiser steps; also the advantages [P, G].

        The first pass whose loss or gradient is not finite is left out, and those after it: `skipped` is 1, the prompts are
        named.
        """
        lengths = counted_lengths(groups, self.algorithm.mask_truncated)
        batches = micro_batches(groups, lengths, self.settings.token_budget, self.policy)
        reference = [self._reference_logprobs(micro) for micro in batches]
        advantages = self._advantages(groups, batches, reference)
        passes: list[PassOutcome] = []
        proximal: list[torch.Tensor] = []
        for _ in range(self.algorithm.passes):
            outcome, logprobs = self._gradients(batches, reference, proximal, advantages, lengths)
            passes.append(outcome)
            if not outcome.finite:
                break
            self._step(self.stage.lr_at(step))
            proximal = proximal or logprobs
        metrics = update_metrics(
            groups,
            passes,
            rewards_of(groups) if self.stage.sampled else None,
            self.algorithm.kl_coef if self.reference is not None else None,
            self.stage.lr_at(step),
            peak_memory_mb(self.device),
            1 - sum(micro.tokens for micro in batches) / sum(micro.padded_tokens for micro in batches),
        )
        self._follow_kl(metrics.kl)
        self._refresh_reference(step)
        return metrics, advantages

    def weights(self) -> FlatWeights:
        """What training changes of the policy, in the samplers' dtype; the next call writes over it."""
        return FlatWeights.of(self.policy.weights(self.dtype, self._wire))

    def save(self, folder: Path) -> None:
        """Write policy/, reference/ (if there is one), the optimiser's state and what else an update changes."""
        self.policy.save(folder / "policy")
        if self.reference is not None:
            self.reference.save(folder / "reference")
        save_optimizer(self.optimizer, self.policy.trained_parameters(), folder / "optimizer.safetensors")
        state = {"kl_coef": self.algorithm.kl_coef, "begun_at": self._algorithm_of(self.stage).kl_coef}
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, folder: Path, stage: Stage) -> None:
        """Go on from a folder written by `save` in the same stage."""
        self.policy = self._prepared(self._load(folder / "policy", self.policy_settings))
        self.begin(stage, folder)
        load_optimizer(self.optimizer, self.policy.trained_parameters(), folder / "optimizer.safetensors")
        if self.algorithm.kl_target is not None:
            self.algorithm = replace(self.algorithm, kl_coef=_adapted(self.algorithm.kl_coef, folder / STATE))

    def _algorithm_of(self, stage: Stage) -> Algorithm:
        """As the stage begins with it; `kl_target` then moves its kl_coef. Stage 1 is cross-entropy, whatever the loss."""
        return SUPERVISED if stage.name == "supervised" else self.settings.algorithm()

    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor | None:
        if self.reference is None:
            return None
        with torch.no_grad(), self._autocast():
            known = self.reference.token_logprobs(micro.contexts, micro.response_ids, self._temperature())
        return known.logprobs.view(micro.token_mask.shape)

    def _advantages(
        self, groups: Sequence[Group], batches: Sequence[MicroBatch], reference: Sequence[torch.Tensor | None]
    ) -> torch.Tensor:
        """[P, G]; that of a gold answer is 1."""
        if not self.stage.sampled:
            return torch.ones(len(groups), 1)
        kl = None
        if self.algorithm.kl_in == "reward":
            known = [logprobs for logprobs in reference if logprobs is not None]
            kl = sequence_kl(batches, known, self.algorithm.kl_estimator).view(len(groups), -1) * self.algorithm.kl_coef
        return advantages_of(groups, self.algorithm, self.reward_weights, self.rollout.max_new_tokens, kl)

    def _gradients(
        self,
        batches: Sequence[MicroBatch],
        reference: Sequence[torch.Tensor | None],
        proximal: Sequence[torch.Tensor],
        advantages: torch.Tensor,
        lengths: torch.Tensor,
    ) -> tuple[PassOutcome, list[torch.Tensor]]:
        """Accumulate the whole batch's gradient; also the policy's log-probs, one tensor a micro-batch."""
        weights = token_weights(lengths, self.algorithm.aggregation, self.rollout.max_new_tokens).to(self.device)
        flat = advantages.flatten().to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        total, parts, logprobs = 0.0, [], []
        for i, micro in enumerate(batches):
            with self._autocast():
                scores = self.policy.token_logprobs(
                    micro.contexts, micro.response_ids, self._temperature(), self.algorithm.entropy_coef > 0
                )
            loss, statistics = policy_loss(
                scores.logprobs.view(micro.loss_mask.shape),
                micro.sampler_logprobs,
                flat[micro.rows],
                weights[micro.rows],
                micro.loss_mask,
                self.algorithm,
                reference_logprobs=reference[i],
                proximal_logprobs=proximal[i] if proximal else None,
                entropy=scores.entropy.view(micro.loss_mask.shape),
            )
            loss.backward()
            total += float(loss.detach())
            parts.append(statistics)
            logprobs.append(scores.logprobs.detach().view(micro.loss_mask.shape))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trained_parameters().values(), self.settings.max_grad_norm)
        return PassOutcome(total, float(norm), TokenStatistics.concatenated(parts)), logprobs

    def _step(self, lr: float) -> None:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.step()

    def _follow_kl(self, kl: float | None) -> None:
        target = self.algorithm.kl_target
        if target is not None and kl is not None and math.isfinite(kl):
            self.algorithm = replace(self.algorithm, kl_coef=adapted_kl_coef(self.algorithm.kl_coef, kl, target))

    def _refresh_reference(self, step: int) -> None:
        every = self.algorithm.reference_every
        if self.reference is not None and every and (step - self.stage.first + 1) % every == 0:
            self.reference = self._compiled(self.policy.frozen_copy())

    def _temperature(self) -> float:
        return self.rollout.temperature if self.stage.sampled else 1.0

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.policy.device.type, self.dtype)

    def _prepared(self, policy: Trainable) -> Trainable:
        """Set up for backward passes; before anything is computed with it."""
        self._compiled(policy)
        if self.settings.activation_checkpointing:
            policy.checkpoint_activations()
        return policy

    def _compiled(self, policy: Trainable) -> Trainable:
        """Raises SettingsError if that is wanted and there is no compiler."""
        if self.settings.compile:
            compiler = os.environ.get("CXX", "g++")  # as torch looks for it
            if shutil.which(compiler) is None:
                raise SettingsError(f"learner.compile: the learner's machine has no {compiler}; install it or leave this out")
            policy.compile()
        return policy

    def _load(self, path: str | Path, settings: PolicySettings) -> Trainable:
        return load_policy(path, settings, torch.float32, self.device)

    def _loaded_reference(self, path: str | Path, model_of: str | None = None) -> Trainable:
        """model_of: whose model it has, if it is adapters. Raises SettingsError if it reads other tokens than the policy."""
        reference = self._load(path, PolicySettings(path=model_of))  # it scores, and renders nothing
        policy = self.policy
        if type(reference) is not type(policy) or reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise SettingsError(
                f"learner.reference_path: {path} reads other tokens than the policy; give a model of the policy's family"
            )
        reference.share_untrained(policy)
        return reference


def _adapted(kl_coef: float, path: Path) -> float:
    """What the coefficient of the settings had become when it was saved; itself if the settings were another then."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return float(saved["kl_coef"]) if saved["begun_at"] == kl_coef else kl_coef
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); resume from another checkpoint") from error
