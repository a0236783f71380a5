"""Prompts and passages -> token rows, by the templates of the settings."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.types import Passage


class Renderer:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        self._tokenizer, self._settings = tokenizer, settings

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[tuple[np.ndarray, ...]]:
        """One row per passage, or the query alone where there is none; int32 [L_k] each, end token included."""
        cut = self._cut_texts({p.text for of_one in passages for p in of_one})
        rows = [self._rows(question, of_one, cut) for question, of_one in zip(questions, passages, strict=True)]
        ids = iter(self._tokenizer([row for of_one in rows for row in of_one])["input_ids"])
        return [tuple(np.asarray(next(ids), np.int32) for _ in of_one) for of_one in rows]

    def _rows(self, question: str, passages: Sequence[Passage], cut: dict[str, str]) -> list[str]:
        query = self._settings.prompt_template.format(question=question)
        template = self._settings.passage_template
        return [template.format(query=query, title=p.title, text=cut[p.text]) for p in passages] or [query]

    def _cut_texts(self, texts: set[str]) -> dict[str, str]:
        """Each text up to its last token within the limit: cutting text before rendering leaves the query whole."""
        if not texts:
            return {}
        limit, ordered = self._settings.max_passage_tokens, sorted(texts)
        encoded = self._tokenizer(ordered, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return {
            text: text if len(offsets) <= limit else text[: offsets[limit - 1][1]]
            for text, offsets in zip(ordered, encoded, strict=True)
        }
