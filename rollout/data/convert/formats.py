"""The forms of other projects' files: how each is known, and what reads a row of it. A new one is a line of the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout.data.convert.examples import (
    DprQuestion,
    Fid,
    FlashRag,
    HotpotQa,
    Kilt,
    NqOpen,
    SearchR1,
    SquadArticle,
    SquadRow,
    TriviaQa,
)
from rollout.data.convert.passages import Contents, DprPassage
from rollout.data.convert.record import Record
from rollout.data.parquet import fields_of

AUTO, PARLAI = "auto", "parlai"
Keys = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """One form of a row; a name may have several. is_form: whether a row is of it, by its keys; the first of the table is."""

    name: str
    record: type[Record]
    is_form: Callable[[Keys], bool]


def _has(*keys: str) -> Callable[[Keys], bool]:
    return lambda row: all(row.get(key) is not None for key in keys)


def _is_of_sentences(context: Any) -> bool:
    """Whether it is titles, each with a list of sentences, or the two as columns."""
    pairs = isinstance(context, list) and context and isinstance(context[0], list)
    return bool(pairs) or (isinstance(context, dict) and {"title", "sentences"} <= context.keys())


FORMATS = (
    Format("search-r1", SearchR1, _has("reward_model")),
    Format("flashrag", FlashRag, _has("question", "golden_answers")),
    Format("hotpotqa", HotpotQa, lambda row: _has("question")(row) and _is_of_sentences(row.get("context"))),
    Format("squad", SquadArticle, _has("paragraphs")),
    Format("squad", SquadRow, lambda row: _has("question")(row) and isinstance(row.get("context"), str)),
    Format("kilt", Kilt, _has("input", "output")),
    Format("triviaqa", TriviaQa, _has("Question")),
    Format("triviaqa", TriviaQa, lambda row: _has("question")(row) and isinstance(row.get("answer"), dict)),
    Format("dpr", DprQuestion, _has("question", "positive_ctxs")),
    Format("fid", Fid, lambda row: _has("question")(row) and not row.keys().isdisjoint(("ctxs", "target", "answers"))),
    Format("nq-open", NqOpen, _has("question", "answer")),
    Format("contents", Contents, _has("contents")),
    Format("dpr", DprPassage, _has("id", "text")),
)
DETECTING = dict.fromkeys((name for each in FORMATS for name in fields_of(each.record)), Any)  # columns that tell a format
NAMES = (AUTO, PARLAI, *dict.fromkeys(each.name for each in FORMATS))


def format_of(row: Keys, name: str = AUTO) -> Format | None:
    """The format of a row, among those of that name; None if it is of none."""
    return next((each for each in FORMATS if name in (AUTO, each.name) and each.is_form(row)), None)


def format_named(name: str, row: Keys) -> Format:
    """That of a name which suits the row best, if need be none: what it lacks will be said."""
    return format_of(row, name) or next(each for each in FORMATS if each.name == name)
