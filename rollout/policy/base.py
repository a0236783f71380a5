"""The base of the built-in policies: one model that is both sampled and trained."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.errors import PolicyError
from rollout.policy.decoding import Decoded, DecodeState, Decoding, decode
from rollout.policy.interface import Context, Generator, Samples, TokenLogprobs, Trainable
from rollout.policy.ragged import distinct_responses
from rollout.policy.rendering import Renderer
from rollout.policy.reply import ReplyReader
from rollout.policy.reply_form import NO_ENDING, Ending
from rollout.policy.small_batch_linear import small_batch_linear
from rollout.policy.weights import flatten, load_flat
from rollout.types import Passage, Response


class Policy(Generator, Trainable, ABC):
    """A model with its tokenizer.

    trained: names of the parameters that training changes. end_tokens: those that end a response; a gold answer ends with the
    first, unless the chat template ends a reply with several. start_token: what a decoder begins with, None where responses go
    on from the prompt.
    """

    renderer: ClassVar[type[Renderer]]
    start_token: int | None = None

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        """settings: with their templates."""
        self.model, self.tokenizer = model.eval(), tokenizer  # dropout stays off: sampler and learner must agree
        self._renderer = self.renderer(tokenizer, settings)
        form = self._renderer.form
        self.end_tokens = end_tokens(model, tokenizer, form.ending)
        self._taught = form.ending.taught or (self.end_tokens[0],)
        self._reader = ReplyReader(tokenizer, self.end_tokens, form, settings.thinking == "keep")
        self.trained = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def positions(self) -> int | None:
        """Most tokens of a prompt and its response together; None where the model sets no bound."""
        return None

    def contexts(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], longest: int | None = None
    ) -> list[Context]:
        return self._renderer.contexts(questions, passages, longest)

    def unsayable(self, answers: Sequence[str]) -> list[bool]:
        """Of each answer, whether its tokens cannot say all of it."""
        return self._renderer.unsayable(answers)

    def target(self, answer: str) -> np.ndarray:
        return np.append(self._renderer.answer(answer), self._taught).astype(np.int32)

    def texts(self, replies: Sequence[np.ndarray]) -> list[str]:
        """Of token ids int32 [T] of responses, what they say."""
        return self._reader.texts(replies)

    @torch.inference_mode()
    def sample(self, contexts: Sequence[Context], group_size: int, decoding: Decoding) -> Samples:
        decode_state, start = self._prefill(contexts, group_size, decoding.max_new_tokens)
        with small_batch_linear(start.numel(), start.device):
            ended = self._reader.ended if self._reader.stops_at_text else None
            decoded = decode(decode_state, start, self.end_tokens, decoding, ended)
        return Samples(self._responses(decoded), decoded.top_p_mass)

    @abstractmethod
    def _prefill(self, contexts: Sequence[Context], group_size: int, max_new_tokens: int) -> tuple[DecodeState, torch.Tensor]:
        """Compute the contexts, once for all responses of a group; the tokens int64 [P, G] that the responses go on from."""

    def token_logprobs(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool = False
    ) -> TokenLogprobs:
        distinct, places = distinct_responses(response_ids)
        scores = self._logprobs_of_distinct(contexts, distinct, temperature, entropy_gradient)
        if distinct is response_ids:
            return scores
        index = places[..., None].expand_as(response_ids)
        return TokenLogprobs(scores.logprobs.gather(1, index), scores.entropy.gather(1, index))

    @abstractmethod
    def context_tokens(self, contexts: Sequence[Context]) -> int: ...

    @abstractmethod
    def checkpoint_activations(self) -> None: ...

    @abstractmethod
    def compile(self) -> None: ...

    @abstractmethod
    def _logprobs_of_distinct(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool
    ) -> TokenLogprobs: ...

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        named = dict(self.model.named_parameters())
        return {name: named[name] for name in self.trained}

    def weights(self, dtype: torch.dtype, out: torch.Tensor | None = None) -> np.ndarray:
        return flatten(self.trained_parameters().values(), dtype, out)

    def load_weights(self, weights: np.ndarray) -> None:
        load_flat(list(self.trained_parameters().values()), weights)

    def frozen_copy(self) -> Self:
        """Copies the attributes as they are: a subclass stores nothing that is bound to `self` or to its model."""
        trained = set(self.trained)
        shared = {id(parameter): parameter for name, parameter in self.model.named_parameters() if name not in trained}
        frozen = copy.copy(self)
        frozen.model = copy.deepcopy(self.model, shared).requires_grad_(False)
        return frozen

    def share_untrained(self, other: Self) -> None:
        theirs = {name: parameter for name, parameter in other.model.named_parameters() if name not in other.trained}
        for name, parameter in self.model.named_parameters():
            if name in theirs and name not in self.trained and torch.equal(parameter, theirs[name]):
                parameter.data = theirs[name].data

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _responses(self, decoded: Decoded) -> list[list[Response]]:
        """Groups of responses from what was decoded for [P, G, T]."""
        lengths, finished = decoded.lengths.flatten().tolist(), decoded.finished.flatten().tolist()
        token_ids = decoded.token_ids.flatten(0, 1).int().cpu().numpy()
        logprobs = decoded.logprobs.flatten(0, 1).cpu().numpy()
        kept = [ids[:length].copy() for ids, length in zip(token_ids, lengths, strict=True)]
        texts = self.texts(kept)
        responses = [
            Response(
                text=text,
                token_ids=ids,
                sampler_logprobs=scores[:length].copy(),
                mask=np.ones(length, np.bool_),
                finished=done,
            )
            for text, ids, scores, length, done in zip(texts, kept, logprobs, lengths, finished, strict=True)
        ]
        size = decoded.lengths.shape[1]
        return [responses[i : i + size] for i in range(0, len(responses), size)]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ending: Ending = NO_ENDING) -> list[int]:
    """The one that training teaches first: what the chat template, else the tokenizer calls the end, then those that generation
    also heeds. What begins the next turn comes first where the model's own config calls it an end, else last."""
    named = [tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None), model.config.eos_token_id]
    own = [end for of_one in named for end in (of_one if isinstance(of_one, list) else [of_one]) if end is not None]
    taught = [end for end in ending.next_turn if end in own and end != tokenizer.bos_token_id]
    ends = (*ending.heeded, *taught, *own, *ending.next_turn)
    known = list(dict.fromkeys(end for end in ends if end < model.get_output_embeddings().weight.shape[0]))
    if not known:
        raise PolicyError(
            "policy: neither its tokenizer nor its config names an end token; set eos_token in tokenizer_config.json"
        )
    return known
