"""ConvAI2 / ParlAI dialogues in both of ParlAI's forms -> LAPDOG's examples, keeping both speakers' turns.

The forms are those of parlai/core/teachers.py: `N text<TAB>label|label<TAB>reward<TAB>candidates`, where N = 1 begins a
dialogue, and `text:...<TAB>labels:...|...<TAB>episode_done:True`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.data.convert.record import Row
from rollout.data.files import text_lines
from rollout.errors import DataError

NUMBERED = re.compile(r"^(\d+) (.*)$")
KEYED = re.compile(r"^(\w+):(.*)$", re.DOTALL)
PERSONA = "your persona:"
OTHER_PERSONA = "partner's persona:"
NOTHING = ("__SILENCE__", "__null__")
FIELDS = ("text", "labels", "eval_labels", "episode_done", "id")
OLD_FIELDS = ("reward", "candidates")


@dataclass(frozen=True, slots=True)
class Turn:
    """text: the partner's, with lines of personas; labels: the agent's replies, the first of which goes into the history."""

    line: int
    is_first: bool
    text: str
    labels: list[str]


def is_parlai(opening: str) -> bool:
    first = opening.partition("\n")[0]
    return bool(NUMBERED.match(first)) or _is_keyed(first)


def dialogue_examples(source: Path, history: int | None, unread: Counter[str]) -> Iterator[tuple[int, Row]]:
    """(line, example) of every turn; without answers where the agent says nothing. unread: counts what is not kept.

    Raises DataError naming the line for what is neither form.
    """
    persona: list[str] = []
    turns: list[str] = []
    dialogue, number = -1, 0
    for turn in _turns(source, unread):
        if turn.is_first:
            persona, turns, dialogue, number = [], [], dialogue + 1, 0
        partner = _partner(turn.text, persona, unread)
        turns += [f"Q: {partner}"] if partner else []
        if turn.labels or partner:
            question = question_of("".join(f"{each}. " for each in persona), turns, history)
            yield turn.line, {"id": f"{dialogue}-{number}", "question": question, "answers": turn.labels}
            number += 1
        turns += [f"R: {turn.labels[0]}"] if turn.labels else []


def question_of(persona: str, turns: Sequence[str], history: int | None) -> str:
    """LAPDOG's form of the last `history` turns, each `Q: ...` or `R: ...`; None keeps all."""
    context = f"context:  {' '.join(turns[-(history or 0) :])}"
    return f"persona: {persona.strip()}{' ' if persona.strip() else ''}{context.rstrip()}"


def _turns(source: Path, unread: Counter[str]) -> Iterator[Turn]:
    is_first = True
    for number, line in text_lines(source):
        if _is_keyed(line):
            fields = _keyed(source, number, line, unread)
            labels = fields.get("labels") or fields.get("eval_labels", "")
            yield Turn(number, is_first, _plain(fields.get("text", ""), r"\t"), _labels(labels, r"\t"))
            is_first = fields.get("episode_done", "").lower() not in ("", "false", "0")
        else:
            yield _numbered(source, number, line, unread)


def _is_keyed(line: str) -> bool:
    return any((found := KEYED.match(field)) and found[1] in FIELDS for field in line.split("\t"))


def _keyed(source: Path, number: int, line: str, unread: Counter[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in line.split("\t"):
        found = KEYED.match(field)
        if not found:
            raise DataError.at(source, number, f"{field[:40]!r} is no field; write name:value, and a tab in a value as \\t")
        fields[found[1]] = found[2]
    unread.update(name for name in fields if name not in FIELDS)
    return fields


def _numbered(source: Path, number: int, line: str, unread: Counter[str]) -> Turn:
    found = NUMBERED.match(line)
    if not found:
        raise DataError.at(source, number, f"{line[:40]!r} begins with no number and space; give ParlAI text")
    fields = [field.strip() for field in found[2].split("\t")]
    is_persona = fields[0].startswith((PERSONA, OTHER_PERSONA)) and len(fields) == 1
    if not is_persona and (len(fields) < 2 or not any(fields[:2])):  # either may be silent
        raise DataError.at(
            source, number, f"{found[2].strip()[:40]!r} is no turn; write the partner's turn, a tab, and the reply"
        )
    unread.update(name for name, field in zip(OLD_FIELDS, fields[2:], strict=False) if field)
    return Turn(number, found[1] == "1", _plain(fields[0]), _labels(fields[1]) if len(fields) > 1 else [])


def _partner(text: str, persona: list[str], unread: Counter[str]) -> str:
    """What the partner says, if anything; lines of the persona among it are added to `persona`."""
    said: list[str] = []
    for line in text.split("\n"):
        if line.startswith(PERSONA):
            persona.append(line.removeprefix(PERSONA).strip().rstrip(".").strip())
        elif line.startswith(OTHER_PERSONA):
            unread["partner's persona"] += 1
        else:
            said.append(line)
    partner = "\n".join(said).strip()
    return "" if partner in NOTHING else partner


def _labels(text: str, tab: str | None = None) -> list[str]:
    labels = [_plain(label, tab).strip() for label in text.split("|")]
    return [label for label in labels if label and label not in NOTHING]


def _plain(text: str, tab: str | None = None) -> str:
    """Without ParlAI's escapes; `tab` is how a tab is written, in the form that has one."""
    text = text.replace("\\n", "\n").replace("__PIPE__", "|")
    return text.replace(tab, "\t") if tab else text
