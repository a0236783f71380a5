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

NAME = "tree"


class Tree(Protocol):
    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Queries [N, H, T, D] of one layer, with the keys and values [N, H_kv, T, D] of the same tokens -> [N, H, T, D]."""
        ...

    @property
    def longest(self) -> int:
        """Most tokens on one way from the root to a leaf, those to come included."""
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
        q, k, v = (_sliced(x[:, :, : self._trunk]) for x in (query, key, value))
        prompt = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        own = _sliced(query[:, :, self._trunk :])
        branches = F.scaled_dot_product_attention(own, key, value, attn_mask=self._mask, scale=scale)
        return torch.cat([prompt, branches], 2)


class Prefill:
    """Prompts [P, L] before their responses: plain causal attention, whose keys and values are kept per layer."""

    def __init__(self, prompt_lengths: torch.Tensor, longest_prompt: int, max_new_tokens: int):
        self.room, self.longest = max_new_tokens, longest_prompt + max_new_tokens
        self.mask = torch.arange(longest_prompt, device=prompt_lengths.device) < prompt_lengths[:, None]
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        self.layers[layer] = key, value
        key, value = _per_query_head(query, key), _per_query_head(query, value)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)


class Branches:
    """One token more of each response, [P*G, 1]: it attends to its prompt's prefill and to its own tokens so far.

    A group's keys stand in one row, [prompt of L][first tokens of G][second tokens of G] ..., so that its G queries read them
    together; a mask keeps the branches apart.
    """

    def __init__(self, prompts: Prefill, group_size: int):
        self._prompts, self._size, self._room, self.length = prompts, group_size, prompts.room, 0
        self.longest, self._trunk = prompts.longest, prompts.mask.shape[1]
        self._layers: dict[int, list[torch.Tensor]] = {}
        self._mask = self._masked()

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Query heads that share a key head are further queries of it: [P*G, H, 1, D] -> [P, H_kv, H / H_kv * G, D]."""
        groups, (rows, heads, _, width) = len(self._mask), key.shape
        start = self._trunk + self.length * self._size
        end = start + self._size
        if layer not in self._layers:
            self._layers[layer] = [self._row(known) for known in self._prompts.layers.pop(layer, (key, value))]
        for row, new in zip(self._layers[layer], (key, value), strict=True):
            row[:, :, start:end] = new.view(groups, self._size, heads, -1).transpose(1, 2)
        keys, values = (row[:, :, :end] for row in self._layers[layer])
        each = query.shape[1] // heads
        folded = query.view(groups, self._size, heads, each, width).permute(0, 2, 3, 1, 4).reshape(groups, heads, -1, width)
        mask = self._mask[..., :end].repeat(1, 1, each, 1)
        out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scale)
        out = out.view(groups, heads, each, self._size, -1).permute(0, 3, 1, 2, 4)
        return out.reshape(rows, heads * each, 1, -1)

    def select(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        """As `decoding.DecodeState.select`."""
        columns = rows.view(len(groups), -1) - groups[:, None] * self._size

        def kept(row: torch.Tensor) -> torch.Tensor:
            row = row[groups]
            own = row[:, :, self._trunk :].unflatten(2, (self._room, self._size))
            chosen = columns[:, None, None, :, None].expand(-1, own.shape[1], self._room, -1, own.shape[4])
            return torch.cat([row[:, :, : self._trunk], own.gather(3, chosen).flatten(2, 3)], 2)

        self._layers = {layer: [kept(row) for row in both] for layer, both in self._layers.items()}
        self._prompts.mask, self._size = self._prompts.mask[groups], columns.shape[1]
        self._mask = self._masked()

    def _row(self, known: torch.Tensor) -> torch.Tensor:
        """Keys or values of one layer, [P, H_kv, L + room * G, D], those of the prompts [P, H_kv, L, D] in place."""
        row = known.new_zeros(len(self._mask), known.shape[1], self._trunk + self._room * self._size, known.shape[3])
        if self._trunk:
            row[:, :, : self._trunk] = known
        return row

    def _masked(self) -> torch.Tensor:
        """What each response may see, bool [P, 1, G, L + room * G]."""
        prompt = self._prompts.mask[:, None, None].expand(-1, -1, self._size, -1)
        own = torch.eye(self._size, dtype=torch.bool, device=prompt.device).repeat(1, self._room)
        return torch.cat([prompt, own.expand(len(prompt), 1, -1, -1)], -1)


def _sliced(x: torch.Tensor) -> torch.Tensor:
    """Compiled code takes the strides of the first slice that its backward pass meets for those of all."""
    return x.contiguous() if torch.compiler.is_compiling() else x


def _per_query_head(query: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Keys or values [N, H_kv, T, D] -> [N, H, T, D]."""
    return x.repeat_interleave(query.shape[1] // x.shape[1], 1) if x.shape[1] != query.shape[1] else x
