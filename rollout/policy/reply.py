"""Token ids of a response -> the text that is scored and shown: without its end, without its thoughts."""

import re
from collections.abc import Collection, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from rollout.policy.reply_form import ReplyForm


class ReplyReader:
    """end_tokens: each ends a reply. keep: whether its thoughts are a part of its text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: Collection[int], form: ReplyForm, keep: bool):
        self._tokenizer, self._form, self._keep, self._endings = tokenizer, form, keep, form.ending.texts
        self._shown_ends = set(end_tokens) - set(tokenizer.all_special_ids)  # decoding leaves the others out by itself
        self._before = form.thoughts.outside(form.before).strip()
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
        self._mark = next((token.content for token in added if self._before.startswith(token.content)), None)
        special = sorted((token.content for token in added if token.special), key=len, reverse=True)
        marks = (*form.thoughts.all, self._before)
        in_marks = [token for token in special if any(token in mark for mark in marks)]
        left_out = [token for token in special if token not in in_marks] if keep else special
        self._left_out = re.compile("|".join(map(re.escape, left_out))) if in_marks else None
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
        texts = self._tokenizer.batch_decode(shown, skip_special_tokens=self._left_out is None)  # or no tag is found
        return [self._read(text) for text in texts]

    def _without_end(self, ids: np.ndarray) -> np.ndarray:
        return ids[:-1] if self._shown_ends and len(ids) and int(ids[-1]) in self._shown_ends else ids

    def _read(self, text: str) -> str:
        places = [place for end in self._endings if (place := text.find(end)) >= 0]
        text = text[: min(places)] if places else text
        if self._keep:
            text = text.lstrip().removeprefix(self._before)
        else:
            text = self._begun(self._form.thoughts.outside(text, bool(self._form.closing)).lstrip())
        return (text if self._left_out is None else self._left_out.sub("", text)).strip()

    def _begun(self, text: str) -> str:
        """Without what the template writes before a reply. Where that begins with a token of its own, so do other parts of a
        response, which come before the reply."""
        if self._mark is None:
            return text.removeprefix(self._before)
        _, begun, reply = text.partition(self._before)
        return reply if begun or text.startswith(self._mark) else text
