"""Rows of question-answering files as other projects write them -> ours."""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from rollout.data.convert.record import Answers, Context, Part, Record, Row, Words
from rollout.data.rows import listed

UNKNOWN = "<unk>"  # TriviaQA's answer where it keeps the answer to itself


class Fid(Record):
    """Fusion-in-Decoder and Atlas; ours, too. `target` is the answer that is trained on."""

    id: Words | None = None
    question: Words = ""
    target: Words | None = None
    answers: Answers = []
    ctxs: list[Context] | None = Field(None, validation_alias=AliasChoices("ctxs", "passages"))
    gold: list[Words] = []

    def rows(self) -> Iterator[Row]:
        contexts = [(context, context.named(number)) for number, context in enumerate(self.ctxs or [], 1)]
        yield {
            "id": self.id,
            "question": self.question,
            "answers": [*([self.target] if self.target else []), *self.answers],
            "passages": None if self.ctxs is None else [passage for _, passage in contexts],
            "gold": self.gold or [passage["id"] for context, passage in contexts if context.hasanswer or context.has_answer],
        }


class DprQuestion(Record):
    """DPR's training data for retrievers. Its passages are no result of a search: the positive ones are gold, none is read."""

    id: Words | None = None
    question: Words = ""
    answers: Answers = []
    positive_ctxs: list[Context] = []

    def rows(self) -> Iterator[Row]:
        gold = [each.passage_id or each.id for each in self.positive_ctxs]
        yield {"id": self.id, "question": self.question, "answers": self.answers, "gold": [id for id in gold if id]}


class NqOpen(Record):
    id: Words | None = None
    question: Words = ""
    answer: Answers = []

    def rows(self) -> Iterator[Row]:
        yield {"id": self.id, "question": self.question, "answers": self.answer}


class FlashRag(Record):
    id: Words | None = None
    question: Words = ""
    golden_answers: Answers = []

    def rows(self) -> Iterator[Row]:
        yield {"id": self.id, "question": self.question, "answers": self.golden_answers}


def _targets(truth: Any) -> Any:
    truth = truth.get("target") if isinstance(truth, dict) else truth
    return [] if truth is None else truth if isinstance(truth, list) else [truth]


class RewardModel(Part):
    ground_truth: Annotated[list[Words], BeforeValidator(_targets)] = []


class Message(Part):
    role: str = ""
    content: str = ""


class SearchR1(Record):
    """Search-R1 and verl: the question by itself, or at the end of the prompt's last message."""

    id: Words | None = None
    question: Words = ""
    golden_answers: Answers = []
    prompt: list[Message] | str = []
    reward_model: RewardModel = RewardModel()

    def rows(self) -> Iterator[Row]:
        messages = [Message(content=self.prompt)] if isinstance(self.prompt, str) else self.prompt
        asked = next((each.content for each in reversed(messages) if each.role in ("user", "")), "")
        question = self.question or asked.rpartition("Question:")[2].strip()
        yield {"id": self.id, "question": question, "answers": self.reward_model.ground_truth or self.golden_answers}


class Provenance(Part):
    wikipedia_id: Words | None = None


class KiltOutput(Part):
    answer: Words | None = None
    provenance: list[Provenance] = []


class Kilt(Record):
    id: Words | None = None
    input: Words = ""
    output: list[KiltOutput] = []

    def rows(self) -> Iterator[Row]:
        gold = [each.wikipedia_id for output in self.output for each in output.provenance]
        yield {
            "id": self.id,
            "question": self.input,
            "answers": [output.answer for output in self.output if output.answer],
            "gold": [id for id in gold if id],
        }


def _pairs(first: str, second: str) -> BeforeValidator:
    """[[a, b], ...] as it is, and {first: [a, ...], second: [b, ...]}, as Hugging Face writes it, in that form."""

    def read(value: Any) -> Any:
        columns = [value.get(first) or [], value.get(second) or []] if isinstance(value, dict) else None
        return value if columns is None else [list(pair) for pair in zip(*columns, strict=True)]

    return BeforeValidator(read)


class HotpotQa(Record):
    """HotpotQA and 2WikiMultihopQA; a passage is called by its title, as the supporting facts call it."""

    id: Words | None = Field(None, validation_alias=AliasChoices("_id", "id"))
    question: Words = ""
    answer: Answers = []
    context: Annotated[list[tuple[str, list[str]]], _pairs("title", "sentences")] = []
    supporting_facts: Annotated[list[tuple[str, int]], _pairs("title", "sent_id")] = []

    def rows(self) -> Iterator[Row]:
        passages = [
            {"id": title, "title": title, "text": " ".join(filter(None, map(str.strip, sentences)))}
            for title, sentences in self.context
        ]
        gold = [title for title, _ in self.supporting_facts]
        yield {"id": self.id, "question": self.question, "answers": self.answer, "passages": passages or None, "gold": gold}


def _paragraph(title: str, text: str) -> Row:
    """A paragraph of SQuAD, called by title and text, so that it has one name wherever it stands."""
    return {
        "id": "-".join([*filter(None, [title]), hashlib.sha256(text.encode()).hexdigest()[:8]]),
        "title": title,
        "text": text,
    }


class SquadAnswer(Part):
    text: Words = ""


class SquadQuestion(Part):
    id: Words | None = None
    question: Words = ""
    answers: list[SquadAnswer] = []
    is_impossible: bool = False


class SquadParagraph(Part):
    context: str = ""
    qas: list[SquadQuestion] = []


class SquadArticle(Record):
    """SQuAD 1.1 and 2.0 as published; a question that has no answer is left out."""

    title: str = ""
    paragraphs: list[SquadParagraph]

    def rows(self) -> Iterator[Row]:
        for paragraph in self.paragraphs:
            passage = _paragraph(self.title, paragraph.context)
            for asked in paragraph.qas:
                answers = [] if asked.is_impossible else [answer.text for answer in asked.answers]
                own = {"passages": [passage], "gold": [passage["id"]]}
                yield {"id": asked.id, "question": asked.question, "answers": answers, **own}


def _with_text(answers: Any) -> Any:
    """Answers as Hugging Face has them, from a list of texts or of objects with a text."""
    if isinstance(answers, dict):
        return answers
    return {"text": [each.get("text") if isinstance(each, dict) else each for each in listed(answers)]}


class SquadAnswers(Part):
    text: Answers = []


class SquadRow(Record):
    """A question a row, with its paragraph: SQuAD as Hugging Face has it, and its like with plain answers."""

    id: Words | None = None
    title: str = ""
    context: str = ""
    question: Words = ""
    answers: Annotated[SquadAnswers, BeforeValidator(_with_text)] = Field(
        SquadAnswers(), validation_alias=AliasChoices("answers", "answer")
    )

    def rows(self) -> Iterator[Row]:
        passage = _paragraph(self.title, self.context)
        own = {"passages": [passage], "gold": [passage["id"]]}
        yield {"id": self.id, "question": self.question, "answers": self.answers.text, **own}


class TriviaAnswer(Part):
    value: Words | None = Field(None, validation_alias=AliasChoices("Value", "value"))
    aliases: Answers = Field([], validation_alias=AliasChoices("Aliases", "aliases"))
    human: Answers = Field([], validation_alias=AliasChoices("HumanAnswers", "human_answers"))


class TriviaQa(Record):
    """TriviaQA as published, and as Hugging Face has it."""

    id: Words | None = Field(None, validation_alias=AliasChoices("QuestionId", "question_id", "id"))
    question: Words = Field("", validation_alias=AliasChoices("Question", "question"))
    answer: TriviaAnswer = Field(TriviaAnswer(), validation_alias=AliasChoices("Answer", "answer"))

    def rows(self) -> Iterator[Row]:
        answers = [*([self.answer.value] if self.answer.value else []), *self.answer.aliases, *self.answer.human]
        yield {"id": self.id, "question": self.question, "answers": [answer for answer in answers if answer != UNKNOWN]}
