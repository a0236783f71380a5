"""Prompts and passages -> token rows, by the templates of the settings."""

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.errors import PolicyError, SettingsError
from rollout.policy.chat_template import ChatTemplate
from rollout.policy.reply_form import ReplyForm, form_of
from rollout.policy.thoughts import ThoughtTags
from rollout.types import Passage

Rows = tuple[np.ndarray, ...]


class Renderer(ABC):
    """settings: with templates, as `loading.with_family_templates` fills them in. form: what surrounds the text of replies."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        assert settings.prompt_template is not None and settings.passage_template is not None
        self._tokenizer, self._limit, self._response_template = (
            tokenizer,
            settings.max_passage_tokens,
            settings.response_template,
        )
        self._prompt_template, self._passage_template = settings.prompt_template, settings.passage_template
        self._thoughts_kept = settings.thinking == "keep"
        tokens = [token.content for token in tokenizer.added_tokens_decoder.values()]
        worded = (settings.prompt_template, settings.system_prompt or "", str(tokenizer.chat_template))
        self.form = ReplyForm(thoughts=ThoughtTags.named_in([*worded, *tokens]))

    def contexts(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], longest: int | None = None
    ) -> list[Rows]:
        """Token rows int32 [L_k] of each question with its passages. longest: of a row; a prompt with a longer one loses of its
        passages first, then of its question's beginning. Raises SettingsError where that leaves no question."""
        rows = self._rows(questions, passages)
        if longest is None:
            return rows
        return [
            self._cut(question, of_one, longest) if max(map(len, context)) > longest else context
            for context, question, of_one in zip(rows, questions, passages, strict=True)
        ]

    @abstractmethod
    def _rows(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Rows]: ...

    @abstractmethod
    def _fewer(self, passages: Sequence[Passage], excess: int) -> Sequence[Passage]:
        """The passages without some of what they say, of which `excess` tokens are too many."""

    def _cut(self, question: str, passages: Sequence[Passage], longest: int) -> Rows:
        while question:
            [context] = self._rows([question], [passages])
            excess = max(map(len, context)) - longest
            if excess <= 0:
                return context
            if any(passage.text for passage in passages):
                passages = self._fewer(passages, excess)
            else:
                question = self._without_beginning(question, excess)
        raise SettingsError(f"data.max_prompt_tokens: {longest} leave no room for a question; raise it")

    def answer(self, answer: str) -> list[int]:
        """Token ids of a response, without an end."""
        text = (self._response_template or "{answer}").format(answer=answer)
        return self._reply_tokens(self.form.before_answer(text, self._thoughts_kept) + text)

    def _reply_tokens(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def unsayable(self, answers: Sequence[str]) -> list[bool]:
        """Of each answer, whether its tokens cannot say all of it: some are unknown, or a character is in none."""
        rows = self._tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        unknown = self._tokenizer.unk_token_id
        return [
            unknown in row or _lacks(said, answer)
            for row, said, answer in zip(rows, self._tokenizer.batch_decode(rows), answers, strict=True)
        ]

    def _cut_texts(self, passages: Sequence[Sequence[Passage]]) -> dict[str, str]:
        """Each text up to its last token within the limit: cutting text before rendering leaves the query whole."""
        ordered = sorted({passage.text for of_one in passages for passage in of_one})
        return dict(zip(ordered, self._beginnings(ordered, self._limit), strict=True))

    def _beginnings(self, texts: Sequence[str], limit: int) -> list[str]:
        """Of each text its first `limit` tokens."""
        if not self._tokenizer.is_fast:  # ByT5: a token a byte
            return [text.encode()[:limit].decode(errors="ignore") for text in texts]
        return [
            text if len(ends) <= limit else text[: ends[limit - 1]] if limit else ""
            for text, ends in zip(texts, self._ends(texts), strict=True)
        ]

    def _without_beginning(self, text: str, count: int) -> str:
        """The text without its first `count` tokens."""
        [ends] = self._ends([text])
        return text[max(1, ends[count - 1]) :].lstrip() if count < len(ends) else ""

    def _ends(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Where in each text its tokens end."""
        if not texts:
            return []
        if not self._tokenizer.is_fast:
            return [[i + 1 for i, letter in enumerate(text) for _ in letter.encode()] for text in texts]
        encoded = self._tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [[end for _, end in offsets] for offsets in encoded]


class FidRenderer(Renderer):
    """One row per passage, the query in each; the query alone where there is none. Every row ends with the end token."""

    def _rows(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Rows]:
        cut = self._cut_texts(passages)
        rows = [self._texts(question, of_one, cut) for question, of_one in zip(questions, passages, strict=True)]
        ids = iter(self._tokenizer([row for of_one in rows for row in of_one])["input_ids"])
        return [tuple(np.asarray(next(ids), np.int32) for _ in of_one) for of_one in rows]

    def _fewer(self, passages: Sequence[Passage], excess: int) -> Sequence[Passage]:
        """Their texts cut at their ends, to as many tokens as the longest may keep."""
        cut = self._cut_texts([passages])
        texts = [cut[passage.text] for passage in passages]
        limit = max(0, max(map(len, self._ends(texts))) - excess)
        shorter = self._beginnings(texts, limit)
        while limit and shorter == texts:  # tokens may be parts of a character
            limit -= 1
            shorter = self._beginnings(texts, limit)
        return [replace(passage, text=text) for passage, text in zip(passages, shorter, strict=True)]

    def _texts(self, question: str, passages: Sequence[Passage], cut: dict[str, str]) -> list[str]:
        query = self._prompt_template.format(question=question)
        template = self._passage_template
        return [template.format(query=query, title=p.title, text=cut[p.text]) for p in passages] or [query]


class CausalRenderer(Renderer):
    """One row: the passages, best first, then the question; through the tokenizer's chat template where it has one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings):
        super().__init__(tokenizer, settings)
        self._chat = None if tokenizer.chat_template is None else ChatTemplate(tokenizer, settings)
        if self._chat is not None:
            self.form = form_of(self._chat, self.form.thoughts)

    def _reply_tokens(self, text: str) -> list[int]:
        """As they go on from a prompt: some tokenizers write the beginning of a text otherwise than its middle."""
        if self._chat is not None:
            prompt_end = self._chat.prompt_end
            prompt, both = self._tokenizer([prompt_end, prompt_end + text], add_special_tokens=False)["input_ids"]
            if both[: len(prompt)] == prompt:
                return both[len(prompt) :]
        return super()._reply_tokens(text)

    def _rows(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Rows]:
        cut = self._cut_texts(passages)
        texts = [self._text(question, of_one, cut) for question, of_one in zip(questions, passages, strict=True)]
        if self._chat is None:
            rows = self._tokenizer(texts)["input_ids"]
        else:
            rows = self._tokenizer(self._chat.prompts(texts), add_special_tokens=False)["input_ids"]
        if not all(rows):
            raise PolicyError("policy.prompt_template: leaves a prompt without a token; put some text into it")
        return [(np.asarray(row, np.int32),) for row in rows]

    def _fewer(self, passages: Sequence[Passage], excess: int) -> Sequence[Passage]:
        """All but the last, which is the worst."""
        return passages[:-1]

    def _text(self, question: str, passages: Sequence[Passage], cut: dict[str, str]) -> str:
        query = self._prompt_template.format(question=question)
        template = self._passage_template
        rendered = [template.format(query=query, title=p.title, text=cut[p.text]).strip() for p in passages]
        return "\n\n".join([*rendered, query])


def _lacks(said: str, answer: str) -> bool:
    """Whether a letter or sign of the answer is not in what its tokens say; spaces, widths and case may differ."""
    if said.split() == answer.split():
        return False
    return bool(_signs(answer) - _signs(said))


def _signs(text: str) -> Counter[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return Counter(sign for sign in folded if unicodedata.category(sign) not in ("Cc", "Cf", "Zs", "Zl", "Zp"))
