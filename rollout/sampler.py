"""Retrieve, render, sample G responses with their log-probs -> groups."""

import hashlib
from collections.abc import Sequence

import numpy as np

from rollout.config import RolloutSettings
from rollout.policy.decoding import Decoding
from rollout.policy.interface import Policy
from rollout.policy.weights import FlatWeights
from rollout.retrieval.retriever import Retriever
from rollout.types import Group, Mode, Prompt, Response, Version


class Sampler:
    """Turns prompts into groups: a pure function of the weights, the prompts of one call and the run's seed.

    Every random choice comes from a generator seeded by (seed, epoch, attempt, prompt id), so it does not matter who computes a
    call, or whether it is computed twice.
    """

    def __init__(self, policy: Policy, retriever: Retriever, settings: RolloutSettings, seed: int):
        self.policy, self.retriever, self.settings, self.seed = policy, retriever, settings, seed
        self.version: Version | None = None
        self.top_p_mass, self.padding = 1.0, 0.0

    def load_weights(self, weights: FlatWeights, version: Version) -> None:
        """Raises PolicyError, and keeps the weights it has, if these are damaged or of another policy."""
        weights.check()
        self.policy.load_weights(weights.values)
        self.version = version

    def groups(self, prompts: Sequence[Prompt], mode: Mode, version: Version) -> list[Group]:
        """One group per prompt. `sample`: G responses; `greedy`: the most probable one; `gold`: a gold answer."""
        retrievals = self.retriever.retrieve(prompts)
        contexts = self.policy.contexts([p.question for p in prompts], [r.passages for r in retrievals])
        self.top_p_mass = 1.0
        self.padding = 1 - sum(len(row) for context in contexts for row in context) / self.policy.context_tokens(contexts)
        match mode:
            case "gold":
                responses = [[self._gold(prompt)] for prompt in prompts]
            case "greedy":
                responses, _ = self.policy.sample(contexts, 1, Decoding(self.settings.max_new_tokens))
            case "sample":
                responses, self.top_p_mass = self.policy.sample(contexts, self.settings.group_size, self._decoding(prompts))
        return [
            Group(prompt=p, retrieval=r, context_ids=c, responses=tuple(answers), version=version)
            for p, r, c, answers in zip(prompts, retrievals, contexts, responses, strict=True)
        ]

    def _decoding(self, prompts: Sequence[Prompt]) -> Decoding:
        settings = self.settings
        shape = (settings.group_size, settings.max_new_tokens)
        uniforms = np.concatenate([generator(self.seed, prompt).random(shape) for prompt in prompts])
        return Decoding(settings.max_new_tokens, settings.temperature, settings.top_p, uniforms)

    def _gold(self, prompt: Prompt) -> Response:
        answer = prompt.answers[generator(self.seed, prompt).integers(len(prompt.answers))]
        target = self.policy.target(answer)
        ids = target[: self.settings.max_new_tokens]
        finished = len(ids) == len(target)
        return Response(text=answer, token_ids=ids, sampler_logprobs=np.zeros(len(ids), np.float32), finished=finished)


def generator(seed: int, prompt: Prompt) -> np.random.Generator:
    """The prompt's own source of randomness in this epoch; a second attempt draws afresh."""
    digest = hashlib.sha256(f"{seed}/{prompt.epoch}/{prompt.attempt}/{prompt.id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
