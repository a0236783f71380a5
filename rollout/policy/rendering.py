"""Prompts and passages -> token rows, by the templates of the settings."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.errors import PolicyError
from rollout.types import Passage


class Renderer(ABC):
    """settings: with templates, as `loading.with_family_templates` fills them in."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        assert settings.prompt_template is not None and settings.passage_template is not None
        self._tokenizer, self._limit, self._response_template = (
            tokenizer,
            settings.max_passage_tokens,
            settings.response_template,
        )
        self._prompt_template, self._passage_template = settings.prompt_template, settings.passage_template

    @abstractmethod
    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[tuple[np.ndarray, ...]]:
        """Token rows int32 [L_k] of each question with its passages."""

    def answer(self, answer: str) -> list[int]:
        """Token ids of a response, without an end."""
        text = (self._response_template or "{answer}").format(answer=answer)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _cut_texts(self, passages: Sequence[Sequence[Passage]]) -> dict[str, str]:
        """Each text up to its last token within the limit: cutting text before rendering leaves the query whole."""
        ordered = sorted({passage.text for of_one in passages for passage in of_one})
        if not ordered:
            return {}
        encoded = self._tokenizer(ordered, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return {
            text: text if len(offsets) <= self._limit else text[: offsets[self._limit - 1][1]]
            for text, offsets in zip(ordered, encoded, strict=True)
        }


class FidRenderer(Renderer):
    """One row per passage, the query in each; the query alone where there is none. Every row ends with the end token."""

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[tuple[np.ndarray, ...]]:
        cut = self._cut_texts(passages)
        rows = [self._rows(question, of_one, cut) for question, of_one in zip(questions, passages, strict=True)]
        ids = iter(self._tokenizer([row for of_one in rows for row in of_one])["input_ids"])
        return [tuple(np.asarray(next(ids), np.int32) for _ in of_one) for of_one in rows]

    def _rows(self, question: str, passages: Sequence[Passage], cut: dict[str, str]) -> list[str]:
        query = self._prompt_template.format(question=question)
        template = self._passage_template
        return [template.format(query=query, title=p.title, text=cut[p.text]) for p in passages] or [query]


class CausalRenderer(Renderer):
    """One row: the passages, best first, then the question; through the tokenizer's chat template where it has one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        super().__init__(tokenizer, settings)
        self._system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[tuple[np.ndarray, ...]]:
        cut = self._cut_texts(passages)
        texts = [self._text(question, of_one, cut) for question, of_one in zip(questions, passages, strict=True)]
        if self._tokenizer.chat_template is None:
            rows = self._tokenizer(texts)["input_ids"]
        else:
            chats = [[*self._system, {"role": "user", "content": text}] for text in texts]
            rendered = self._tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
            rows = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if not all(rows):
            raise PolicyError("policy.prompt_template: leaves a prompt without a token; put some text into it")
        return [(np.asarray(row, np.int32),) for row in rows]

    def _text(self, question: str, passages: Sequence[Passage], cut: dict[str, str]) -> str:
        query = self._prompt_template.format(question=question)
        template = self._passage_template
        rendered = [template.format(query=query, title=p.title, text=cut[p.text]).strip() for p in passages]
        return "\n\n".join([*rendered, query])
