"""What sets one kind of model apart: everything that loads, words, measures or describes a policy asks its Family."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rollout.policy.base import Policy
from rollout.policy.templates import Templates


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens: of the longest context and of its longest row; of the longest response, and of all responses of a group."""

    context: int
    row: int
    response: int
    group: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Numbers that a model holds beside its weights. cached: keys and values that decoding keeps of each token. kept: what the
    forward keeps of its dearest token for the backward; checkpointed: the same if each layer keeps its input alone; logits are
    made in slices and not among them. once: what it keeps beside its tokens."""

    cached: int
    kept: int
    checkpointed: int
    once: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """name: what messages call such a model, with "a" before it. model_types: of transformers' configs. auto_model:
    transformers' class that loads one.

    templates: the default ones; chat_templates: those beside a tokenizer with a chat template, None where none is used.
    fuses_passages: each passage is read with the question, in a row of its own. made_up_tokens: size of the tokenizer that
    transformers makes up for a folder without one. positions: most tokens of a prompt and its response together, if bounded.
    """

    name: str
    model_types: Collection[str]
    auto_model: Any
    policy: type[Policy]
    templates: Templates
    chat_templates: Templates | None = None
    fuses_passages: bool
    made_up_tokens: int
    footprint: Callable[[PretrainedConfig, Lengths], Footprint]
    positions: Callable[[PretrainedConfig], int | None]

    def chats(self, tokenizer: PreTrainedTokenizerBase | None) -> bool:
        """Whether prompts go through the tokenizer's chat template."""
        return self.chat_templates is not None and tokenizer is not None and tokenizer.chat_template is not None
