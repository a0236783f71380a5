"""Retrieve, render, sample G responses with their log-probs -> groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.config import RolloutSettings
from rollout.policy.decoding import Decoding
from rollout.policy.interface import Generator, Samples
from rollout.policy.weights import FlatWeights
from rollout.retrieval.retriever import Retriever
from rollout.seeding import rng_of
from rollout.types import NO_DRAWS, Draws, Group, Mode, Prompt, Response, Version


@dataclass(frozen=True, slots=True)
class SampledGroups:
    """One group per prompt, in their order. top_p_mass: mean probability inside the nucleus. padding: its share of the tokens
    that the contexts' forward computes."""

    groups: list[Group]
    top_p_mass: float
    padding: float


class Sampler:
    """Turns prompts into groups: a pure function of the weights, the prompts of one call and the run's seed.

    Every random choice comes from a generator seeded by (seed, epoch, attempt, prompt id), so it does not matter who computes a
    call, or whether it is computed twice.
    """

    def __init__(
        self,
        policy: Generator,
        retriever: Retriever,
        settings: RolloutSettings,
        seed: int,
        longest_prompt: int | None = None,
        draws: Draws = NO_DRAWS,
    ):
        """longest_prompt: tokens beyond which a prompt is cut."""
        self.policy, self.retriever, self.settings, self.seed = policy, retriever, settings, seed
        self._longest_prompt, self._draws = longest_prompt, draws
        self.version: Version | None = None

    def load_weights(self, weights: FlatWeights, version: Version) -> None:
        """Raises DamagedWeights, or PolicyError for those of another policy, and keeps the weights it has."""
        weights.check()
        self.policy.load_weights(weights.values)
        self.version = version

    def sample(self, prompts: Sequence[Prompt], mode: Mode, version: Version) -> SampledGroups:
        """`sample`: G responses to each prompt; `greedy`: the most probable one; `draw`: those of an evaluation, from all
        of the distribution; `gold`: a gold answer."""
        retrievals = self.retriever.retrieve(prompts)
        passages = [retrieval.passages for retrieval in retrievals]
        contexts = self.policy.contexts([prompt.question for prompt in prompts], passages, self._longest_prompt)
        match mode:
            case "gold":
                samples = Samples([[self._gold(prompt)] for prompt in prompts], top_p_mass=1.0)
            case "greedy":
                samples = self.policy.sample(contexts, 1, Decoding(self.settings.max_new_tokens))
            case "sample":
                asked = self.settings.group_size, self.settings.temperature, self.settings.top_p
                samples = self.policy.sample(contexts, asked[0], self._decoding(prompts, *asked))
            case "draw":
                samples = self.policy.sample(contexts, self._draws.samples, self._decoding(prompts, *self._draws))
        groups = [
            Group(prompt=p, retrieval=r, context_ids=c, responses=tuple(answers), version=version)
            for p, r, c, answers in zip(prompts, retrievals, contexts, samples.responses, strict=True)
        ]
        tokens = sum(len(row) for context in contexts for row in context)
        return SampledGroups(groups, samples.top_p_mass, padding=1 - tokens / self.policy.context_tokens(contexts))

    def _decoding(self, prompts: Sequence[Prompt], count: int, temperature: float, top_p: float = 1.0) -> Decoding:
        longest = self.settings.max_new_tokens
        uniforms = np.concatenate([rng_of(prompt, self.seed).random((count, longest)) for prompt in prompts])
        return Decoding(longest, temperature, top_p, uniforms)

    def _gold(self, prompt: Prompt) -> Response:
        answer = prompt.answers[rng_of(prompt, self.seed).integers(len(prompt.answers))]
        target = self.policy.target(answer)
        ids = target[: self.settings.max_new_tokens]
        return Response(
            text=answer,
            token_ids=ids,
            sampler_logprobs=np.zeros(len(ids), np.float32),
            mask=np.ones(len(ids), np.bool_),
            finished=len(ids) == len(target),
        )
