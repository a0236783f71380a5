"""T5 Fusion-in-Decoder (Izacard & Grave 2021): every passage is encoded with the query, the decoder attends to all.

A group is computed once: its prompt is encoded once, and its G responses share one cross-attention K/V per layer. T5's
cross-attention has neither a mask between queries nor a position bias, so the responses' queries [P*G, T] fold into the
query length [P, G*T] without changing any result.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from rollout.config import PolicySettings
from rollout.policy.decoding import Decoded, Decoding, decode
from rollout.policy.interface import Context, Policy, TokenScores, pad
from rollout.policy.rendering import Renderer
from rollout.types import Passage, Response


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder reads: per layer, keys and values [P, H, S, D] of S = K*L encoder tokens; mask [P, 1, 1, S]."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor


class SelfAttentionCache:
    """Per layer, keys and values [N, H, max_length, D] of the tokens decoded so far."""

    def __init__(self, layers: int):
        self.length = 0
        self._keys: list[torch.Tensor | None] = [None] * layers
        self._values: list[torch.Tensor | None] = [None] * layers

    def extend(self, layer: int, key: torch.Tensor, value: torch.Tensor, room: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Append one token's key and value [N, H, 1, D]; returns those of all tokens so far."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            keys, values = (x.new_empty(*x.shape[:2], room, x.shape[3]) for x in (key, value))
            self._keys[layer], self._values[layer] = keys, values
        keys[:, :, self.length : self.length + 1] = key
        values[:, :, self.length : self.length + 1] = value
        return keys[:, :, : self.length + 1], values[:, :, : self.length + 1]


class FidPolicy(Policy):
    model: T5ForConditionalGeneration

    def __init__(self, model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        self.model, self.tokenizer = model.eval(), tokenizer  # dropout stays off: sampler and learner must agree
        self._renderer = Renderer(tokenizer, settings)
        self._response_template = settings.response_template
        self._heads, self._head_width = model.config.num_heads, model.config.d_kv
        end, start = model.config.eos_token_id, model.config.decoder_start_token_id
        self._end: int = end[0] if isinstance(end, list) else end
        self._start: int = model.config.pad_token_id if start is None else start

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Context]:
        return self._renderer.contexts(questions, passages)

    def target(self, answer: str) -> np.ndarray:
        text = self._response_template.format(answer=answer)
        return np.asarray([*self.tokenizer(text, add_special_tokens=False)["input_ids"], self._end], np.int32)

    @torch.inference_mode()
    def sample(self, contexts: Sequence[Context], group_size: int, decoding: Decoding) -> tuple[list[list[Response]], float]:
        memory, cache = self._encode(contexts), SelfAttentionCache(len(self.model.decoder.block))
        bias = self._causal_bias(decoding.max_new_tokens)

        def next_logits(tokens: torch.Tensor) -> torch.Tensor:
            hidden = self._decode(memory, tokens[:, None], bias, cache)
            cache.length += 1
            return self._logits(hidden[:, 0])

        start = torch.full((len(contexts) * group_size,), self._start, device=self.model.device)
        decoded = decode(next_logits, start, self._end, decoding)
        responses = self._responses(decoded)
        return [responses[i : i + group_size] for i in range(0, len(responses), group_size)], decoded.kept_mass

    def score(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool = False
    ) -> TokenScores:
        groups, size, length = response_ids.shape
        labels = response_ids.view(groups * size, length)
        inputs = torch.cat([torch.full_like(labels[:, :1], self._start), labels[:, :-1]], 1)
        hidden = self._decode(self._encode(contexts), inputs, self._causal_bias(length))
        logprobs = torch.log_softmax(self._logits(hidden).float() / temperature, -1)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = -(logprobs.exp() * logprobs).sum(-1)
        picked = logprobs.gather(-1, labels[..., None])[..., 0]
        return TokenScores(picked.view(response_ids.shape), entropy.view(response_ids.shape))

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.model.lm_head.weight is not self.model.shared.weight:
            _untie(folder / "config.json")

    def _encode(self, contexts: Sequence[Context]) -> Memory:
        """Encode each row once, padded to the longest only, and project the cross-attention K/V of every layer."""
        device, widest = self.model.device, max(len(context) for context in contexts)
        rows = [row for context in contexts for row in context]
        slots = [p * widest + k for p, context in enumerate(contexts) for k in range(len(context))]
        ids, mask = pad(rows, np.int64)
        real = mask.to(device)
        states = self.model.encoder(input_ids=ids.to(device), attention_mask=real).last_hidden_state
        placed = states.new_zeros(len(contexts) * widest, *states.shape[1:])
        placed = placed.index_copy(0, torch.tensor(slots, device=device), states)
        visible = real.new_zeros(len(contexts) * widest, real.shape[1])
        visible[slots] = real
        states = placed.view(len(contexts), -1, states.shape[-1])
        attentions = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
        return Memory(
            [self._split(a.k(states)) for a in attentions],
            [self._split(a.v(states)) for a in attentions],
            visible.view(len(contexts), 1, 1, -1),
        )

    def _decode(
        self, memory: Memory, ids: torch.Tensor, bias: torch.Tensor, cache: SelfAttentionCache | None = None
    ) -> torch.Tensor:
        """Decoder states [N, T, d_model] of ids [N, T] with N = P*G; with a cache, ids [N, 1] go on from its tokens."""
        past, total = (0, ids.shape[1]) if cache is None else (cache.length, cache.length + 1)
        rows, prompts, room = bias[:, :, past:total, :total], memory.mask.shape[0], bias.shape[-1]
        x = self.model.decoder.embed_tokens(ids)
        for i, block in enumerate(self.model.decoder.block):
            own, cross, feed_forward = block.layer
            h, attention = own.layer_norm(x), own.SelfAttention
            key, value = self._split(attention.k(h)), self._split(attention.v(h))
            if cache is not None:
                key, value = cache.extend(i, key, value, room)
            x = x + attention.o(self._attend(self._split(attention.q(h)), key, value, rows, x.shape))
            h, attention = cross.layer_norm(x), cross.EncDecAttention
            folded = self._split(attention.q(h).reshape(prompts, -1, self._heads * self._head_width))
            x = x + attention.o(self._attend(folded, memory.keys[i], memory.values[i], memory.mask, x.shape))
            x = feed_forward(x)
        return self.model.decoder.final_layer_norm(x)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, shape: torch.Size
    ) -> torch.Tensor:
        mask = mask if mask.dtype == torch.bool else mask.to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)  # T5 does not scale
        return out.transpose(1, 2).reshape(*shape[:2], -1)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self._heads, self._head_width).transpose(1, 2)

    def _causal_bias(self, length: int) -> torch.Tensor:
        """T5's relative position bias under a causal mask, [1, H, length, length]."""
        bias = self.model.decoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
        return bias + torch.full((length, length), float("-inf"), device=bias.device).triu(1)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        config = self.model.config
        return self.model.lm_head(hidden * config.d_model**-0.5 if config.scale_decoder_outputs else hidden)

    def _responses(self, decoded: Decoded) -> list[Response]:
        lengths, finished = decoded.lengths.tolist(), decoded.finished.tolist()
        token_ids, logprobs = decoded.token_ids.int().cpu().numpy(), decoded.logprobs.cpu().numpy()
        kept = [ids[:length].copy() for ids, length in zip(token_ids, lengths, strict=True)]
        texts = self.tokenizer.batch_decode(kept, skip_special_tokens=True)
        return [
            Response(text=text.strip(), token_ids=ids, sampler_logprobs=scores[:length].copy(), finished=done)
            for text, ids, scores, length, done in zip(texts, kept, logprobs, lengths, finished, strict=True)
        ]


def _untie(config: Path) -> None:
    """Say that the head is the model's own: transformers 5 finds out by itself, but writes the opposite."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"tie_word_embeddings": False}, indent=2) + "\n", encoding="utf-8")
