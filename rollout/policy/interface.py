"""What is sampled and trained: the one interface of all policies."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rollout.errors import PolicyError
from rollout.policy.decoding import Decoded, DecodeState, Decoding, decode
from rollout.policy.rendering import Renderer
from rollout.policy.small_batch_linear import small_batch_linear
from rollout.policy.weights import flatten, load_flat
from rollout.types import Passage, Response

Context = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of given responses, float32 [P, G, T]: log-prob of every token and entropy (nats) of what it was drawn from."""

    logprobs: torch.Tensor
    entropy: torch.Tensor


class Policy(ABC):
    """A model with its tokenizer. A context is what the model reads of one prompt: token rows, int32 [L_k] each.

    trained: names of the parameters that training changes: all, or the adapters alone.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, renderer: Renderer):
        self.model, self.tokenizer = model.eval(), tokenizer  # dropout stays off: sampler and learner must agree
        self._renderer, self._ends = renderer, end_tokens(model, tokenizer)
        self.trained = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Context]:
        """Render and tokenise each question with its passages."""
        return self._renderer.contexts(questions, passages)

    def target(self, answer: str) -> np.ndarray:
        """Token ids int32 [T] of a gold answer, end token included."""
        return np.append(self._renderer.answer(answer), self._ends[0]).astype(np.int32)

    @torch.inference_mode()
    def sample(self, contexts: Sequence[Context], group_size: int, decoding: Decoding) -> tuple[list[list[Response]], float]:
        """Draw `group_size` responses for each context; also the mean mass kept by top_p."""
        decode_state, start = self._begin(contexts, group_size, decoding.max_new_tokens)
        with small_batch_linear(start.numel(), start.device):
            decoded = decode(decode_state, start, self._ends, decoding)
        return self._responses(decoded), decoded.top_p_mass

    @abstractmethod
    def _begin(self, contexts: Sequence[Context], group_size: int, max_new_tokens: int) -> tuple[DecodeState, torch.Tensor]:
        """Compute the contexts, once for all responses of a group; the tokens int64 [P, G] that the responses go on from."""

    def score(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool = False
    ) -> TokenScores:
        """Differentiable log-probs of given responses, int64 [P, G, T], padded on the right with any token; the entropy is
        differentiable if that is asked for. Equal responses of a group are computed once."""
        distinct, places = distinct_responses(response_ids)
        scores = self._score(contexts, distinct, temperature, entropy_gradient)
        if distinct is response_ids:
            return scores
        index = places[..., None].expand_as(response_ids)
        return TokenScores(scores.logprobs.gather(1, index), scores.entropy.gather(1, index))

    @abstractmethod
    def _score(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool
    ) -> TokenScores: ...

    @abstractmethod
    def context_tokens(self, contexts: Sequence[Context]) -> int:
        """Tokens of these contexts that one forward computes, padding included."""

    @abstractmethod
    def checkpoint_activations(self) -> None:
        """Keep only the layers' inputs in a forward that is differentiated, and compute the rest again in its backward."""

    @abstractmethod
    def compile(self) -> None:
        """Let torch compile the layers."""

    def trained_parameters(self) -> list[nn.Parameter]:
        named = dict(self.model.named_parameters())
        return [named[name] for name in self.trained]

    def weights(self, dtype: torch.dtype, out: torch.Tensor | None = None) -> np.ndarray:
        """All that training changes, as one flat array: a new one, or `out`, a `wire_buffer` of these parameters."""
        return flatten(self.trained_parameters(), dtype, out)

    def load_weights(self, weights: np.ndarray) -> None:
        """Take over an array made by another policy's `weights`."""
        load_flat(self.trained_parameters(), weights)

    def frozen_copy(self) -> Self:
        """The policy as it stands now, which no training changes; what is not trained is shared with this one."""
        trained = set(self.trained)
        shared = {id(parameter): parameter for name, parameter in self.model.named_parameters() if name not in trained}
        frozen = copy.copy(self)
        frozen.model = copy.deepcopy(self.model, shared).requires_grad_(False)
        return frozen

    def share_untrained(self, other: Self) -> None:
        """Hold what neither trains only once, where it is equal."""
        theirs = {name: parameter for name, parameter in other.model.named_parameters() if name not in other.trained}
        for name, parameter in self.model.named_parameters():
            if name in theirs and name not in self.trained and torch.equal(parameter, theirs[name]):
                parameter.data = theirs[name].data

    def save(self, folder: Path) -> None:
        """Write a plain transformers folder; with adapters, a plain folder of adapters that names their model."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _responses(self, decoded: Decoded) -> list[list[Response]]:
        """Groups of responses from what was decoded for [P, G, T]."""
        lengths, finished = decoded.lengths.flatten().tolist(), decoded.finished.flatten().tolist()
        token_ids = decoded.token_ids.flatten(0, 1).int().cpu().numpy()
        logprobs = decoded.logprobs.flatten(0, 1).cpu().numpy()
        kept = [ids[:length].copy() for ids, length in zip(token_ids, lengths, strict=True)]
        texts = self.tokenizer.batch_decode(kept, skip_special_tokens=True)
        responses = [
            Response(text=text.strip(), token_ids=ids, sampler_logprobs=scores[:length].copy(), finished=done)
            for text, ids, scores, length, done in zip(texts, kept, logprobs, lengths, finished, strict=True)
        ]
        size = decoded.lengths.shape[1]
        return [responses[i : i + size] for i in range(0, len(responses), size)]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The one that training teaches first: what the tokenizer calls the end, then those that generation also heeds."""
    named = [tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None), model.config.eos_token_id]
    ends = [end for of_one in named for end in (of_one if isinstance(of_one, list) else [of_one]) if end is not None]
    known = list(dict.fromkeys(end for end in ends if end < model.get_output_embeddings().weight.shape[0]))
    if not known:
        raise PolicyError(
            "policy: neither its tokenizer nor its config names an end token; set eos_token in tokenizer_config.json"
        )
    return known


def distinct_responses(response_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses [P, G, T] -> those of each group that differ, [P, G', T] with G' that of the group with most, filled up with
    zeros; and where in them each response stands, [P, G]."""
    groups, size, length = response_ids.shape
    group = torch.arange(groups, device=response_ids.device)
    rows = torch.cat([group.repeat_interleave(size)[:, None], response_ids.flatten(0, 1)], 1)
    unique, inverse = torch.unique(rows, dim=0, return_inverse=True)  # sorted, so those of a group stand together
    counts = torch.bincount(unique[:, 0], minlength=groups)
    first = counts.cumsum(0) - counts
    most = int(counts.max())
    if most == size:
        return response_ids, torch.arange(size, device=response_ids.device).expand(groups, size)
    distinct = response_ids.new_zeros(groups, most, length)
    owner = unique[:, 0]
    distinct[owner, torch.arange(len(unique), device=owner.device) - first[owner]] = unique[:, 1:]
    return distinct, inverse.view(groups, size) - first[:, None]


def pad(rows: Sequence[np.ndarray], dtype: type) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows [L_i] -> a tensor [N, max L] filled up with zeros on the right, and the mask bool of what is real."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded: np.ndarray = np.zeros(mask.shape, dtype)
    padded[mask] = np.concatenate(rows)
    return torch.from_numpy(padded), torch.from_numpy(mask)
