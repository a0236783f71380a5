"""A T5-small Fusion-in-Decoder reader with random weights, and the ways others compute its groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from rollout.config import PolicySettings
from rollout.policy.base import Policy
from rollout.policy.family_t5 import T5
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Context
from rollout.policy.templates import with_templates

VOCABULARY = 32128


@dataclass(frozen=True, slots=True)
class Shape:
    """P prompts of K passages of L tokens each, T response tokens."""

    prompts: int = 2
    passages: int = 6
    passage_tokens: int = 128
    response_tokens: int = 24


def reader(seed: int) -> FidPolicy:
    config = T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, dropout_rate=0.0)  # its other defaults are T5-small's
    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")))
    return FidPolicy(T5ForConditionalGeneration(config), tokenizer, with_templates(PolicySettings(), None, T5))


def random_contexts(shape: Shape, seed: int = 0) -> list[Context]:
    generator = np.random.default_rng(seed)
    size = (shape.prompts, shape.passages, shape.passage_tokens)
    return [tuple(rows) for rows in generator.integers(5, VOCABULARY - 128, size).astype(np.int32)]


def stacked(contexts: Sequence[Context]) -> torch.Tensor:
    """Contexts of equal shape as one tensor int64 [P, K, L]."""
    return torch.from_numpy(np.stack([np.stack(rows) for rows in contexts]).astype(np.int64))


def encoded(model: T5ForConditionalGeneration, ids: torch.Tensor) -> torch.Tensor:
    """[P, K, L] -> states [P, K*L, d_model] by transformers' encoder."""
    states = model.encoder(input_ids=ids.flatten(0, 1)).last_hidden_state
    return states.view(ids.shape[0], -1, states.shape[-1])


def patch_logprobs(policy: Policy, contexts: Sequence[Context], responses: torch.Tensor) -> torch.Tensor:
    """The patch's way: every response brings its own copy of the prompt, which is encoded for it alone."""
    return _repeated(policy, encoded(policy.model, stacked(contexts).repeat_interleave(responses.shape[1], 0)), responses)


def encode_once_logprobs(policy: Policy, contexts: Sequence[Context], responses: torch.Tensor) -> torch.Tensor:
    """Each prompt is encoded once, then its states are repeated for the group."""
    return _repeated(policy, encoded(policy.model, stacked(contexts)).repeat_interleave(responses.shape[1], 0), responses)


def _repeated(policy: Policy, states: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """Log-probs [N, T] of responses [P, G, T] by transformers' decoder, each on its own states [N, K*L, d_model]."""
    labels = responses.flatten(0, 1)
    inputs = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1)
    logits = policy.model(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=inputs).logits
    return torch.log_softmax(logits.float(), -1).gather(-1, labels[..., None])[..., 0]
