"""SamplerActor: a Ray shell round Sampler."""

import time
from pathlib import Path
from typing import Any

import ray
import torch

from rollout.config import DataSettings, PolicySettings, RolloutSettings
from rollout.policy.loading import DTYPES, load_policy
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Mode, Sampler
from rollout.types import CallReport, Group, Prompt, Version


class SamplerActor:
    def __init__(
        self,
        name: str,
        policy_path: str,
        data: DataSettings,
        policy: PolicySettings,
        rollout: RolloutSettings,
        seed: int,
        threads: int,
    ):
        torch.set_num_threads(threads)  # Ray starts actors with OMP_NUM_THREADS=1
        self._name = name
        device = "cuda" if torch.cuda.is_available() else "cpu"
        corpus = Corpus.open(Path(data.passages), data.cache) if data.passages is not None else None
        retriever = Retriever(corpus, data.query, policy.n_context)
        self._sampler = Sampler(load_policy(policy_path, policy, DTYPES[policy.dtype], device), retriever, rollout, seed)

    def __repr__(self) -> str:
        return f"Sampler[{self._name}]"

    def ready(self) -> None:
        """Answers once the actor has started."""

    def groups(
        self, prompts: list[Prompt], mode: Mode, version: Version, weights: list["ray.ObjectRef[Any]"]
    ) -> tuple[CallReport | Group, ...]:
        """A report, then one group a prompt. The weights come as a reference in a list, fetched only if they are new."""
        start = time.perf_counter()
        if self._sampler.version != version and weights:
            self._sampler.load_weights(ray.get(weights[0]), version)
        synced = time.perf_counter()
        groups = self._sampler.groups(prompts, mode, version)
        report = CallReport(
            version=version,
            seconds=time.perf_counter() - synced,
            sync_seconds=synced - start,
            kept_mass=self._sampler.kept_mass,
        )
        return report, *groups
