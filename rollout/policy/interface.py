"""What is sampled and trained: the one interface of all policies."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from transformers import PreTrainedModel

from rollout.policy.decoding import Decoding
from rollout.policy.weights import flatten, load_flat
from rollout.types import Passage, Response

Context = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of given responses, float32 [P, G, T]: log-prob of every token and entropy (nats) of what it was drawn from."""

    logprobs: torch.Tensor
    entropy: torch.Tensor


class Policy(ABC):
    """A model with its tokenizer. A context is what the model reads of one prompt: token rows, int32 [L_k] each."""

    model: PreTrainedModel

    @abstractmethod
    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Context]:
        """Render and tokenise each question with its passages."""

    @abstractmethod
    def target(self, answer: str) -> np.ndarray:
        """Token ids int32 [T] of a gold answer, end token included."""

    @abstractmethod
    def sample(self, contexts: Sequence[Context], group_size: int, decoding: Decoding) -> tuple[list[list[Response]], float]:
        """Draw `group_size` responses for each context; also the mean mass kept by top_p."""

    @abstractmethod
    def score(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool = False
    ) -> TokenScores:
        """Differentiable log-probs of given responses, int64 [P, G, T], padded on the right with any token; the entropy is
        differentiable if that is asked for."""

    def weights(self, dtype: torch.dtype) -> np.ndarray:
        """All that training changes, as one flat array."""
        return flatten(self.model, dtype)

    def load_weights(self, weights: np.ndarray) -> None:
        """Take over an array made by another policy's `weights`."""
        load_flat(self.model, weights)

    def frozen_copy(self) -> Self:
        """The policy as it stands now, which no training changes."""
        frozen = copy.copy(self)
        frozen.model = copy.deepcopy(self.model).requires_grad_(False)
        return frozen

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a plain transformers folder."""


def pad(rows: Sequence[np.ndarray], dtype: type) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows [L_i] -> a tensor [N, max L] filled up with zeros on the right, and the mask bool of what is real."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded: np.ndarray = np.zeros(mask.shape, dtype)
    padded[mask] = np.concatenate(rows)
    return torch.from_numpy(padded), torch.from_numpy(mask)
