"""A policy's two faces: what a Sampler needs of it (Generator) and what a Learner needs (Trainable).

The built-in policies have both, through `base.Policy`. An engine that only samples implements Generator alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rollout.policy.decoding import Decoding
from rollout.types import Passage, Response

# what the model reads of one prompt: token rows, int32 [L_k] each
Context = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """One group of responses per context; top_p_mass: mean probability inside the nucleus."""

    responses: list[list[Response]]
    top_p_mass: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of given responses, float32 [P, G, T]: log-prob of every token and entropy (nats) of what it was drawn from."""

    logprobs: torch.Tensor
    entropy: torch.Tensor


class Generator(Protocol):
    """Samples responses. That `decoding.uniforms` decide every draw, so that a call can be repeated bit for bit, is a property
    of the built-in policies; an engine that draws by itself seeds its own generator with them."""

    def contexts(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], longest: int | None = None
    ) -> list[Context]:
        """Render and tokenise each question with its passages. longest: tokens of a row beyond which the prompt is cut."""
        ...

    def context_tokens(self, contexts: Sequence[Context]) -> int:
        """Tokens of these contexts that one forward computes, padding included."""
        ...

    def target(self, answer: str) -> np.ndarray:
        """Token ids int32 [T] of a gold answer, end token included."""
        ...

    def sample(self, contexts: Sequence[Context], group_size: int, decoding: Decoding) -> Samples:
        """Draw `group_size` responses for each context."""
        ...

    def load_weights(self, weights: np.ndarray) -> None:
        """Take over an array made by `Trainable.weights`; raises PolicyError if it does not fit."""
        ...


class Trainable(Protocol):
    """Computes differentiable log-probs, and hands its weights over."""

    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device: ...

    def context_tokens(self, contexts: Sequence[Context]) -> int:
        """Tokens of these contexts that one forward computes, padding included."""
        ...

    def token_logprobs(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool = False
    ) -> TokenLogprobs:
        """Differentiable log-probs of given responses, int64 [P, G, T], padded on the right with any token; the entropy is
        differentiable if that is asked for. Equal responses of a group are computed once."""
        ...

    def trained_parameters(self) -> Mapping[str, nn.Parameter]:
        """Those that training changes, by name: all, or the adapters alone."""
        ...

    def weights(self, dtype: torch.dtype, out: torch.Tensor | None = None) -> np.ndarray:
        """All that training changes, as one flat array: a new one, or `out`, a `wire_buffer` of these parameters."""
        ...

    def save(self, folder: Path) -> None:
        """Write a plain transformers folder; with adapters, a plain folder of adapters that names their model."""
        ...

    def frozen_copy(self) -> Self:
        """The policy as it stands now, which no training changes; what is not trained is shared with this one."""
        ...

    def share_untrained(self, other: Self) -> None:
        """Hold what neither trains only once, where it is equal."""
        ...

    def checkpoint_activations(self) -> None:
        """Keep only the layers' inputs in a forward that is differentiated, and compute the rest again in its backward."""
        ...

    def compile(self) -> None:
        """Let torch compile the layers."""
        ...
