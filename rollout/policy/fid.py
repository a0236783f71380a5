"""T5 Fusion-in-Decoder (Izacard & Grave 2021): every passage is encoded with the query, the decoder attends to all.

A group is computed once: its prompt is encoded once, and its G responses share one cross-attention K/V per layer. T5's
cross-attention has neither a mask between queries nor a position bias, so the responses' queries [P*G, T] fold into the
query length [P, G*T] without changing any result.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention, T5Block

from rollout.config import PolicySettings
from rollout.policy.base import Policy
from rollout.policy.buckets import buckets, padded_tokens
from rollout.policy.interface import Context, TokenLogprobs
from rollout.policy.layers import checkpoint_layers, compile_layers
from rollout.policy.ragged import pad
from rollout.policy.rendering import FidRenderer
from rollout.policy.response_cache import ResponseCache
from rollout.policy.token_logprobs import sliced_logprobs


@dataclass(frozen=True, slots=True)
class EncoderCache:
    """What the decoder reads: per layer, keys and values [P, H, S, D] of the S encoder tokens of the longest context; mask
    bool [P, 1, 1, S]."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor

    def select(self, groups: torch.Tensor) -> "EncoderCache":
        return EncoderCache([k[groups] for k in self.keys], [v[groups] for v in self.values], self.mask[groups])


class FidPolicy(Policy):
    model: T5ForConditionalGeneration
    start_token: int
    renderer = FidRenderer

    def __init__(self, model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        super().__init__(model, tokenizer, settings)
        start = getattr(model.config, "decoder_start_token_id", None)
        self.start_token = model.config.pad_token_id if start is None else start
        self._block: Callable[..., torch.Tensor] = decoder_block

    def _prefill(
        self, contexts: Sequence[Context], group_size: int, max_new_tokens: int
    ) -> tuple["FidDecodeState", torch.Tensor]:
        start = torch.full((len(contexts), group_size), self.start_token, device=self.device)
        return FidDecodeState(self, self._encode(contexts), max_new_tokens), start

    def _logprobs_of_distinct(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool
    ) -> TokenLogprobs:
        groups, size, length = response_ids.shape
        starts = response_ids.new_full((groups, size, 1), self.start_token)
        inputs = torch.cat([starts, response_ids[..., :-1]], -1)
        hidden = self.decode(self._encode(contexts), inputs.view(-1, length), self.causal_bias(length))
        hidden = hidden.view(groups, size, length, -1)
        return sliced_logprobs(hidden, response_ids, self.logits, self.model.config.vocab_size, temperature, entropy_gradient)

    def context_tokens(self, contexts: Sequence[Context]) -> int:
        return padded_tokens([len(row) for context in contexts for row in context])

    def checkpoint_activations(self) -> None:
        checkpoint_layers(self.model)
        self._block = partial(checkpoint, self._block, use_reentrant=False)

    def compile(self) -> None:
        compile_layers(self.model.encoder)
        self._block = torch.compile(decoder_block, dynamic=True)

    def save(self, folder: Path) -> None:
        super().save(folder)
        if self.model.lm_head.weight is not self.model.shared.weight and (folder / "config.json").exists():
            _untie(folder / "config.json")

    def _encode(self, contexts: Sequence[Context]) -> EncoderCache:
        """Encode the contexts and project the cross-attention K/V of every decoder layer."""
        states, visible = self._encoded(contexts)
        return EncoderCache(*self._cross_attention(states), visible[:, None, None])

    def _encoded(self, contexts: Sequence[Context]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states [P, S, d_model], S tokens in the longest context, and which of them are a context's own, bool [P, S].

        Each row is encoded once, together with rows of about its length. A context's rows stand end to end, without padding
        between them.
        """
        rows = [row for context in contexts for row in context]
        owners = np.repeat(np.arange(len(contexts)), [len(context) for context in contexts])
        lengths = np.array([len(row) for row in rows])
        sizes = np.bincount(owners, lengths).astype(np.int64)  # tokens of each context
        starts = np.cumsum(lengths) - lengths - (np.cumsum(sizes) - sizes)[owners]  # of each row in its context
        width = int(sizes.max())
        encoded, places = [], []
        for bucket in buckets(lengths):
            ids, real = pad([rows[i] for i in bucket], np.int64)
            real = real.to(self.device)
            states = self.model.encoder(input_ids=ids.to(self.device), attention_mask=real).last_hidden_state
            encoded.append(states[real])
            places += [owners[i] * width + starts[i] + np.arange(lengths[i]) for i in bucket]
        place = torch.from_numpy(np.concatenate(places)).to(self.device)
        tokens = torch.cat(encoded)
        states = tokens.new_zeros(len(contexts) * width, tokens.shape[-1]).index_copy(0, place, tokens)
        visible = torch.arange(width, device=self.device) < torch.from_numpy(sizes).to(self.device)[:, None]
        return states.view(len(contexts), width, -1), visible

    def _cross_attention(self, states: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What each decoder layer reads of encoder states [P, S, d_model]: keys and values [P, H, S, D].

        All keys come before all values: in another order the gradients of the states would be summed to other last bits.
        """
        attentions = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
        return [_split(a.k(states), a) for a in attentions], [_split(a.v(states), a) for a in attentions]

    def decode(
        self, encoder_cache: EncoderCache, ids: torch.Tensor, bias: torch.Tensor, cache: ResponseCache | None = None
    ) -> torch.Tensor:
        """Decoder states [N, T, d_model] of ids [N, T] with N = P*G; with a cache, ids [N, 1] go on from its tokens.

        bias [1, H, T, T']: of these T queries towards the T' tokens so far.
        """
        x = self.model.decoder.embed_tokens(ids)
        for i, block in enumerate(self.model.decoder.block):
            x = self._block(block, x, encoder_cache.keys[i], encoder_cache.values[i], encoder_cache.mask, bias, cache, i)
        return self.model.decoder.final_layer_norm(x)

    def causal_bias(self, length: int) -> torch.Tensor:
        """T5's relative position bias under a causal mask, [1, H, length, length]."""
        bias = self.model.decoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
        return bias + torch.full((length, length), float("-inf"), device=bias.device).triu(1)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        config = self.model.config
        scaled = getattr(config, "scale_decoder_outputs", False)  # mT5 never does
        return self.model.lm_head(hidden * config.d_model**-0.5 if scaled else hidden)


def decoder_block(
    block: T5Block,
    x: torch.Tensor,
    encoder_key: torch.Tensor,
    encoder_value: torch.Tensor,
    encoder_mask: torch.Tensor,
    bias: torch.Tensor,
    cache: ResponseCache | None,
    layer: int,
) -> torch.Tensor:
    """One layer of the decoder, [N, T, d_model] -> the same. A function, so that a copy of a policy shares no weights by it."""
    own, cross, feed_forward = block.layer
    h, attention = own.layer_norm(x), own.SelfAttention
    key, value = _split(attention.k(h), attention), _split(attention.v(h), attention)
    if cache is not None:
        key, value = cache.extend(layer, key, value)
    x = x + attention.o(_attend(_split(attention.q(h), attention), key, value, bias, x.shape))
    h, attention = cross.layer_norm(x), cross.EncDecAttention
    folded = _split(attention.q(h).reshape(encoder_key.shape[0], -1, attention.inner_dim), attention)
    x = x + attention.o(_attend(folded, encoder_key, encoder_value, encoder_mask, x.shape))
    return feed_forward(x)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    mask = mask if mask.dtype == torch.bool else mask.to(query.dtype)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)  # T5 does not scale
    return out.transpose(1, 2).reshape(*shape[:2], -1)


def _split(x: torch.Tensor, attention: T5Attention) -> torch.Tensor:
    """[N, T, H * D] -> [N, H, T, D]."""
    return x.view(*x.shape[:2], attention.n_heads, attention.key_value_proj_dim).transpose(1, 2)


class FidDecodeState:
    """Groups of responses that grow over one encoder cache."""

    def __init__(self, policy: FidPolicy, encoder_cache: EncoderCache, max_new_tokens: int):
        self._policy, self._encoder_cache, self._cache = policy, encoder_cache, ResponseCache(max_new_tokens)
        self._bias = policy.causal_bias(max_new_tokens)

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        bias = self._bias[:, :, self._cache.length : self._cache.length + 1, : self._cache.length + 1]
        hidden = self._policy.decode(self._encoder_cache, tokens.view(-1, 1), bias, self._cache)
        self._cache.length += 1
        return self._policy.logits(hidden.view(*tokens.shape, -1))

    def select(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        if len(groups) < len(self._encoder_cache.mask):
            self._encoder_cache = self._encoder_cache.select(groups)
        self._cache.select(rows)


def _untie(config: Path) -> None:
    """Say that the head is the model's own: transformers 5 finds out by itself, but writes the opposite."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"tie_word_embeddings": False}, indent=2) + "\n", encoding="utf-8")
