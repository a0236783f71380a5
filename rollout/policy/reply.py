"""Token ids of a response -> the text that is scored and shown: without its end, without its thoughts."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from rollout.policy.chat_template import CLOSING, OPENING, Ending

Part = TypeVar("Part", str, int)


class ReplyReader:
    """end_tokens: each ends a reply. opened: replies begin inside of a thought. thoughts: whether they are kept."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_tokens: Collection[int], ending: Ending, opened: bool, thoughts: bool
    ):
        self._tokenizer, self._opened, self._thoughts, self._endings = tokenizer, opened, thoughts, ending.texts
        special = set(tokenizer.all_special_ids)
        self._shown_ends = set(end_tokens) - special  # decoding leaves the others out by itself
        tags = [tokenizer.added_tokens_encoder.get(tag) for tag in (OPENING, CLOSING)]
        self._tags = tags if special.issuperset(tags) else None  # decoding would leave them out
        self._tail = max((len(text.encode()) for text in self._endings), default=0) + 1

    @property
    def stops_at_text(self) -> bool:
        return bool(self._endings)

    def ended(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Which of the replies so far, int64 [N, T], hold one of the texts that end them, bool [N]; called at every token, it
        looks at the last ones."""
        said = self._tokenizer.batch_decode(token_ids[:, -self._tail :])
        return torch.tensor([any(end in text for end in self._endings) for text in said], device=token_ids.device)

    def texts(self, replies: Sequence[np.ndarray]) -> list[str]:
        shown = [self._without_end(ids) for ids in replies]
        if not self._thoughts and self._tags is not None:
            opening, closing = self._tags
            shown = [np.array(_outside(ids.tolist(), opening, closing, self._opened), np.int32) for ids in shown]
        texts = self._tokenizer.batch_decode(shown, skip_special_tokens=True)
        return [self._read(text) for text in texts]

    def _without_end(self, ids: np.ndarray) -> np.ndarray:
        return ids[:-1] if self._shown_ends and len(ids) and int(ids[-1]) in self._shown_ends else ids

    def _read(self, text: str) -> str:
        places = [place for end in self._endings if (place := text.find(end)) >= 0]
        text = text[: min(places)] if places else text
        if self._thoughts or self._tags is not None:
            return text.strip()
        return without_thoughts(text, self._opened).strip()


def without_thoughts(text: str, opened: bool = False) -> str:
    """The text without `<think>...</think>`; of a thought that is never closed nothing is left. opened: it begins in one."""
    if not opened and OPENING not in text and CLOSING not in text:
        return text
    return "".join(_outside(re.split(f"({OPENING}|{CLOSING})", text), OPENING, CLOSING, opened))


def _outside(parts: Iterable[Part], opening: Part, closing: Part, inside: bool) -> list[Part]:
    """The parts that stand between no two tags; one that only closes ends a thought that the prompt began."""
    kept: list[Part] = []
    for part in parts:
        if part == opening:
            inside = True
        elif part == closing:
            kept, inside = kept if inside else [], False
        elif not inside:
            kept.append(part)
    return kept
