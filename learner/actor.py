"""LearnerActor: a Ray shell round Learner."""

import os
import time
from pathlib import Path

import ray
import torch

from learner.config import LearnerSettings, Stage
from learner.learner import Learner
from learner.samples import write_samples
from learner.update_metrics import UpdateMetrics
from rollout.config import PolicySettings, RolloutSettings
from rollout.errors import writing
from rollout.identity import PROJECT, Identity, code_digest
from rollout.logs import log_what_is_done
from rollout.policy.loading import load_policy
from rollout.policy.weights import FlatWeights
from rollout.types import Group


class LearnerActor:
    def __init__(
        self,
        policy_path: str,
        settings: LearnerSettings,
        rollout: RolloutSettings,
        policy: PolicySettings,
        reward_weights: dict[str, float],
        threads: int | None,
    ):
        self._policy_path, self._threads = policy_path, threads
        self._settings, self._rollout, self._policy = settings, rollout, policy
        self._reward_weights = reward_weights
        self._trained_to = "step 0"

    def __repr__(self) -> str:
        return "Learner"

    def ready(self) -> None:
        """Load the model. An error here reaches the driver as itself, one in __init__ would not."""
        self._log = log_what_is_done()
        torch.set_num_threads(self._threads or os.cpu_count() or 1)  # Ray starts actors with OMP_NUM_THREADS=1
        device = "cuda" if torch.cuda.is_available() else "cpu"
        policy = load_policy(self._policy_path, self._policy, torch.float32, device)
        self._learner = Learner(policy, self._settings, self._rollout, self._policy, self._reward_weights)
        self._log.info("%s: ready on %s with %d threads, policy %s", self, device, torch.get_num_threads(), self._policy_path)

    def ping(self) -> Identity:
        """Who it is, if alive."""
        return Identity(ray.get_runtime_context().get_node_id(), os.getpid(), code_digest(), str(PROJECT))

    def begin(self, stage: Stage) -> None:
        self._learner.begin(stage)
        self._trained_to = f"step {stage.first - 1}"
        self._log.info("began %s, steps %d to %d", stage.name, stage.first, stage.last)

    def update(self, step: int, samples: Path | None, *groups: Group) -> tuple[UpdateMetrics, float]:
        """Update on a batch, write its responses to `samples` if asked; also the seconds that the update took."""
        start = time.perf_counter()
        metrics, advantages = self._learner.update(groups, step)
        seconds = time.perf_counter() - start
        if samples is not None:
            write_samples(samples, groups, advantages.tolist())
        self._trained_to = f"step {step}"
        done = f"{len(groups)} groups, {metrics.response_tokens} response tokens in {seconds:.2f} s, loss {metrics.loss:.4f}"
        skipped = "; skipped, its loss or gradient is not finite" if metrics.skipped else ""
        self._log.info("step %d: %s%s", step, done, skipped)
        return metrics, seconds

    def weights(self) -> tuple[FlatWeights, int]:
        """Also their bytes, which Ray stores after them: who awaits this part meets a store that could not take the weights."""
        start = time.perf_counter()
        weights = self._learner.weights()
        size, seconds = weights.values.nbytes, time.perf_counter() - start
        self._log.info("published the weights of %s, %.1f MB in %.2f s", self._trained_to, size / 1e6, seconds)
        return weights, size

    def save(self, folder: Path) -> None:
        with writing(folder):
            self._learner.save(folder)
        self._log.info("saved the state of %s", self._trained_to)

    def restore(self, folder: Path, stage: Stage) -> None:
        self._learner.restore(folder, stage)
        self._trained_to = folder.name.replace("-", " ")
        self._log.info("restored %s", folder)
