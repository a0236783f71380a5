"""Attention over a tree: a prompt is the trunk, its G responses are branches that see it and themselves, not each other.

Registered with transformers as an attention of its own, so that any causal LM takes it that hands its attention the forward's
keyword `tree`. Axes: P prompts of up to L tokens, H heads, H_kv heads of keys and values, D head width.
"""

from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface

from rollout.errors import PolicyError
from rollout.policy.response_cache import ResponseCache

NAME = "tree"


class Tree(Protocol):
    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Queries [N, H, T, D] of one layer, with the keys and values [N, H_kv, T, D] of the same tokens -> [N, H, T, D]."""
        ...

    @property
    def longest(self) -> int:
        """Most tokens on one way from the root to a leaf."""
        ...


def tree_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    tree: Tree | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function. Raises PolicyError for a model whose attention is of another kind."""
    name = type(module).__name__
    if tree is None:
        raise PolicyError(f"policy: {name} does not tell its attention which tokens share a prompt; give another model")
    if unknown := [k for k in ("softcap", "s_aux", "position_bias") if others.get(k) is not None]:
        raise PolicyError(f"policy: {name} uses {unknown[0]}, which group-shared attention does not; give another model")
    window = others.get("sliding_window")
    if window is not None and tree.longest > window:
        raise PolicyError(
            f"policy: {tree.longest} tokens exceed {name}'s window of {window}; "
            "lower policy.n_context, policy.max_passage_tokens or rollout.max_new_tokens"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return tree.attend(cast(int, module.layer_idx), query, key, value, scale).transpose(1, 2), None


AttentionInterface.register(NAME, tree_attention)


class PackedTree:
    """Prompt and responses in one row, [prompt of L][response 1 of T] ... [response G of T], as the learner scores them.

    prompt_lengths int64 [P]: what of the L is not padding, which stands on the right.
    """

    def __init__(self, prompt_lengths: torch.Tensor, longest_prompt: int, group_size: int, length: int):
        self.longest, self._trunk = longest_prompt + length, longest_prompt
        device = prompt_lengths.device
        branch = torch.arange(group_size, device=device).repeat_interleave(length)
        own = (branch[:, None] == branch).tril()  # [G*T, G*T]
        prompt = torch.arange(longest_prompt, device=device) < prompt_lengths[:, None]  # [P, L]
        groups, tokens = len(prompt_lengths), len(branch)
        self._mask = torch.cat([prompt[:, None].expand(-1, tokens, -1), own.expand(groups, -1, -1)], -1)[:, None]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Two products, so that the prompt's own half stays a plain causal attention; its padding is behind all that count."""
        key, value = _per_query_head(query, key), _per_query_head(query, value)
        q, k, v = (x[:, :, : self._trunk] for x in (query, key, value))
        prompt = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        branches = F.scaled_dot_product_attention(query[:, :, self._trunk :], key, value, attn_mask=self._mask, scale=scale)
        return torch.cat([prompt, branches], 2)


class Prefill:
    """Prompts [P, L] before their responses: plain causal attention, whose keys and values are kept per layer."""

    def __init__(self, prompt_lengths: torch.Tensor, longest_prompt: int):
        self.longest = longest_prompt
        self.mask = torch.arange(longest_prompt, device=prompt_lengths.device) < prompt_lengths[:, None]
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        self.layers[layer] = key.contiguous(), value.contiguous()  # every step to come reads them whole
        key, value = _per_query_head(query, key), _per_query_head(query, value)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)

    def keep(self, groups: torch.Tensor) -> None:
        self.mask = self.mask[groups]
        self.layers = {layer: (key[groups], value[groups]) for layer, (key, value) in self.layers.items()}


class Branches:
    """One token more of each response, [P*G, 1]: it attends to its prompt's prefill and to its own tokens so far."""

    def __init__(self, prompts: Prefill, max_new_tokens: int):
        self._prompts, self.cache = prompts, ResponseCache(max_new_tokens)

    @property
    def longest(self) -> int:
        return self._prompts.longest + self.cache.length + 1

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Scores towards the prompt, folded by group, and towards the own tokens share one softmax."""
        rows, heads, _, width = query.shape
        own_key, own_value = self.cache.extend(layer, key, value)
        query = (query * scale).view(rows, own_key.shape[1], -1, width)  # [N, H_kv, H / H_kv, D]
        scores = query @ own_key.transpose(2, 3)
        seen = 0
        if self._prompts.layers:
            prompt_key, prompt_value = self._prompts.layers[layer]
            seen = prompt_key.shape[2]
            hidden = ~self._prompts.mask[:, None, None]
            towards_prompt = (self._folded(query) @ prompt_key.transpose(2, 3)).masked_fill(hidden, float("-inf"))
            scores = torch.cat([self._unfolded(towards_prompt, query), scores], -1)
        shares = torch.softmax(scores.float(), -1).to(query.dtype)
        out = shares[..., seen:] @ own_value
        if self._prompts.layers:
            out = out + self._unfolded(self._folded(shares[..., :seen]) @ prompt_value, query)
        return out.reshape(rows, heads, 1, width)

    def _folded(self, x: torch.Tensor) -> torch.Tensor:
        """[P*G, H_kv, R, X] -> [P, H_kv, G*R, X]."""
        groups = len(self._prompts.mask)
        return x.view(groups, -1, *x.shape[1:]).transpose(1, 2).reshape(groups, x.shape[1], -1, x.shape[-1])

    def _unfolded(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """[P, H_kv, G*R, X] -> [P*G, H_kv, R, X]."""
        rows, heads, each = like.shape[:3]
        return x.view(len(x), heads, -1, each, x.shape[-1]).transpose(1, 2).reshape(rows, heads, each, -1)


def _per_query_head(query: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Keys or values [N, H_kv, T, D] -> [N, H, T, D]."""
    return x.repeat_interleave(query.shape[1] // x.shape[1], 1) if x.shape[1] != query.shape[1] else x
