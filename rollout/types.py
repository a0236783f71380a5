"""The nouns that travel between actors. Axes: G responses of a prompt, K passages, L context tokens, T response tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

# sample: G draws to learn from; greedy: the most probable response; draw: those of an evaluation; gold: an answer of the data
Mode = Literal["sample", "greedy", "draw", "gold"]


class Draws(NamedTuple):
    """Responses that an evaluation draws for a prompt beside the greedy one."""

    samples: int = 0
    temperature: float = 1.0


NO_DRAWS = Draws()


class Version(NamedTuple):
    """Names one state of the policy's weights; a learner that restarts begins a new incarnation."""

    incarnation: int
    step: int


class PromptKey(NamedTuple):
    """What identifies a prompt in a run: the same question comes once in every epoch."""

    epoch: int
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One example: `passages` replaces retrieval where the data supplies it, `gold` (passage ids) only measures recall,
    which leaves out those of `absent_gold`, that no passage has;
    `attempt` counts the groups that were set aside in this epoch because their rewards were all equal; `extra` holds the
    example's other columns as JSON has them, where a user's own reward may ask for them."""

    id: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...] | None = None
    gold: tuple[str, ...] = ()
    # outside of repr, by which a resumed run knows its examples
    absent_gold: tuple[str, ...] = field(default=(), hash=False, repr=False)
    epoch: int = 0
    attempt: int = 0
    # the same: without a user's reward the examples are the same without it
    extra: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    @property
    def key(self) -> PromptKey:
        return PromptKey(self.epoch, self.id)


RankingName = Literal["lexical", "dense"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRanking:
    """One of the two scores that a hybrid adds up. scores: of the passages that are read; ranking: ids of its own best."""

    scores: tuple[float, ...]
    ranking: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """The passages the policy reads, best first, and the ids of a deeper ranking that serves to measure recall.

    parts: of a hybrid, else empty."""

    passages: tuple[Passage, ...]
    scores: tuple[float, ...]
    ranking: tuple[str, ...] = ()
    parts: Mapping[RankingName, PartRanking] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """token_ids int32 [T], up to and including the end token if `finished`; sampler_logprobs float32 [T]. mask bool [T]: the
    tokens that the loss and all that is learnt from count; False where the policy did not write a token itself."""

    text: str
    token_ids: np.ndarray
    sampler_logprobs: np.ndarray
    mask: np.ndarray
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt, what was retrieved for it, and G responses drawn under one version of the weights.

    context_ids: the token rows that the policy read, int32 [L_k] each: one per passage where they are fused, else one.
    rewards float32 [G] and reward_parts (name -> float32 [G])
    stay None and empty until the group is scored; NaN stands where one does not apply.
    """

    prompt: Prompt
    retrieval: Retrieval
    context_ids: tuple[np.ndarray, ...]
    responses: tuple[Response, ...]
    version: Version
    rewards: np.ndarray | None = None
    reward_parts: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """What the driver needs to know of one call to a sampler: the groups themselves stay references.

    figures: the call's numbers, by their names in metrics.jsonl.
    """

    version: Version
    figures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """The same of one call to a reward actor. reward_ranges: highest minus lowest reward of each group."""

    reward_ranges: tuple[float, ...]
    figures: dict[str, float]
