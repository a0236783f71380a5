"""Causal LMs: the passages and the question are one prompt, which is computed once for its whole group.

Learner: prompt and responses stand in one row under a tree mask, each response's positions go on from the prompt's end, so the
prompt's forward and backward are paid once. Sampler: one prefill of the prompt, whose keys and values all its responses read.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.errors import PolicyError, first_line
from rollout.policy import tree_attention
from rollout.policy.base import Policy
from rollout.policy.interface import Context, TokenLogprobs
from rollout.policy.layers import checkpoint_layers, compile_layers
from rollout.policy.ragged import pad
from rollout.policy.rendering import CausalRenderer
from rollout.policy.token_logprobs import sliced_logprobs
from rollout.policy.tree_attention import Branches, PackedTree, Prefill

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


class CausalPolicy(Policy):
    renderer = CausalRenderer

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        super().__init__(model, tokenizer, settings)
        self._positions = _positions(model.config)
        self._adopt_tree_attention()

    def _logprobs_of_distinct(
        self, contexts: Sequence[Context], response_ids: torch.Tensor, temperature: float, entropy_gradient: bool
    ) -> TokenLogprobs:
        groups, size, length = response_ids.shape
        self._check_length(contexts, length)
        ids, lengths = self._prompts([row for (row,) in contexts])
        read = response_ids[..., :-1]  # nothing is predicted from the last token
        steps = torch.arange(length - 1, device=ids.device)
        positions = [torch.arange(ids.shape[1], device=ids.device).expand_as(ids), lengths[:, None] + steps.repeat(size)]
        tree = PackedTree(lengths, ids.shape[1], size, length - 1)
        hidden = self.hidden(torch.cat([ids, read.flatten(1)], 1), torch.cat(positions, 1), tree)
        prompt_end = hidden[torch.arange(groups, device=ids.device), lengths - 1]  # it predicts every first token
        own = hidden[:, ids.shape[1] :].view(groups, size, length - 1, hidden.shape[-1])
        before = torch.cat([prompt_end[:, None, None].expand(-1, size, 1, -1), own], 2)
        return sliced_logprobs(before, response_ids, self.logits, self._vocabulary, temperature, entropy_gradient)

    def _prefill(
        self, contexts: Sequence[Context], group_size: int, max_new_tokens: int
    ) -> tuple["CausalDecodeState", torch.Tensor]:
        """All of the prompts but their last tokens is computed; those are what the responses begin with."""
        self._check_length(contexts, max_new_tokens)
        ids, lengths = self._prompts([row[:-1] for (row,) in contexts])
        prompts = Prefill(lengths, ids.shape[1], max_new_tokens)
        if ids.shape[1]:
            self.hidden(ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids), prompts)
        start = torch.tensor([int(row[-1]) for (row,) in contexts], device=ids.device)[:, None].repeat(1, group_size)
        return CausalDecodeState(self, lengths, Branches(prompts, group_size)), start

    @property
    def positions(self) -> int | None:
        return longest_sequence(self.model.config)

    def context_tokens(self, contexts: Sequence[Context]) -> int:
        return len(contexts) * max(len(row) for (row,) in contexts)

    def checkpoint_activations(self) -> None:
        checkpoint_layers(self.model)

    def compile(self) -> None:
        compile_layers(self.model)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.get_output_embeddings()(hidden)

    @property
    def _vocabulary(self) -> int:
        return self.model.get_output_embeddings().weight.shape[0]

    def _prompts(self, rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids int64 [P, L], padded on the right, and lengths int64 [P]."""
        ids, real = pad(rows, np.int64)
        return ids.to(self.device), real.sum(1).to(self.device)

    def hidden(self, ids: torch.Tensor, positions: torch.Tensor, tree: tree_attention.Tree) -> torch.Tensor:
        """Last states [N, S, d_model] of ids [N, S]; the tree alone says what is attended to."""
        everything = torch.ones_like(ids)
        body = self.model.base_model
        return body(ids, attention_mask=everything, position_ids=positions, use_cache=False, tree=tree).last_hidden_state

    def _check_length(self, contexts: Sequence[Context], new_tokens: int) -> None:
        longest = max(len(row) for (row,) in contexts)
        if self._positions is not None and longest + new_tokens > self._positions:
            raise PolicyError(
                f"policy: a prompt of {longest} and a response of {new_tokens} tokens exceed {self._positions} positions; "
                "lower policy.n_context, policy.max_passage_tokens or rollout.max_new_tokens"
            )

    @torch.no_grad()
    def _adopt_tree_attention(self) -> None:
        """Raise PolicyError unless the model's log-probs, scored and decoded, are those of its own plain forward."""
        tokens = torch.arange(3, 16) % self._vocabulary
        prompt, responses = tokens[:7], tokens[7:].view(1, 2, 3).to(self.device)
        sequences = torch.cat([prompt.expand(2, -1).to(responses.device), responses[0]], 1)
        logits = self.model(sequences, attention_mask=torch.ones_like(sequences), use_cache=False).logits
        plain = torch.log_softmax(logits[:, len(prompt) - 1 : -1].float(), -1)  # [2, 3, V]
        self.model.set_attn_implementation(tree_attention.NAME)
        name = type(self.model).__name__
        if self.model.config._attn_implementation != tree_attention.NAME:
            raise PolicyError(f"policy: the attention of {name} cannot be exchanged for a group-shared one; give another model")
        context = [(prompt.numpy().astype(np.int32),)]
        try:
            scored = self._logprobs_of_distinct(context, responses, 1.0, False).logprobs[0]
            decode_state, tokens = self._prefill(context, 2, 3)
            decoded = [decode_state.next_logits(given)[0] for given in (tokens, responses[..., 0], responses[..., 1])]
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            problem = f"{name} cannot compute a shared prompt ({first_line(error)})"
            raise PolicyError(f"policy: {problem}; give another model") from error
        off = [
            scored - plain.gather(-1, responses[0, ..., None])[..., 0],
            torch.log_softmax(torch.stack(decoded, 1).float(), -1) - plain,
        ]
        allowed = TOLERANCE[self.model.dtype] * plain.std(-1).max()
        if not all(bool((difference.abs() <= allowed).all()) for difference in off):
            raise PolicyError(f"policy: {name} computes a shared prompt differently from a copied one; give another model")


class CausalDecodeState:
    """Groups of responses that grow over one prefill, beginning with their prompts' last tokens at `positions` [P]."""

    def __init__(self, policy: CausalPolicy, positions: torch.Tensor, branches: Branches):
        self._policy, self._positions, self._branches = policy, positions, branches

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = (self._positions + self._branches.length)[:, None].expand_as(tokens)
        hidden = self._policy.hidden(tokens.reshape(-1, 1), positions.reshape(-1, 1), self._branches)
        self._branches.length += 1
        return self._policy.logits(hidden.view(*tokens.shape, -1))

    def select(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        self._positions = self._positions[groups]
        self._branches.select(groups, rows)


def _positions(config: PretrainedConfig) -> int | None:
    """Up to how many tokens the model's forward is the same for all that stand in one call."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    switched = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    limits = (getattr(text, "max_position_embeddings", None), getattr(text, "attention_chunk_size", None), switched)
    return min((limit for limit in limits if limit is not None), default=None)


def longest_sequence(config: PretrainedConfig) -> int | None:
    """Most tokens of a prompt and its response together: the last token is read by none, so a window may be one shorter."""
    text = config.get_text_config()
    slides = "sliding_attention" in (getattr(text, "layer_types", None) or ("sliding_attention",))
    window = getattr(text, "sliding_window", None) if slides else None
    limits = (_positions(config), None if window is None else window + 1)
    return min((limit for limit in limits if limit is not None), default=None)
