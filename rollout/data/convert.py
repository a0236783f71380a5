"""Raw ConvAI2 / ParlAI dialogues -> LAPDOG's jsonl, keeping both speakers' turns."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rollout.data.dataset import text_lines
from rollout.errors import DISK_REMEDY, DataError, writing

NUMBERED = re.compile(r"^(\d+) (.*)$")
PERSONA = "your persona:"
OTHER_PERSONA = "partner's persona:"


def convert_parlai(source: Path, target: Path, history: int | None) -> int:
    """Write one example for every reply of the agent, with the last `history` turns before it; returns their number.

    Lines are `N your persona: ...` and `N partner's turn<TAB>agent's reply[<TAB>...]`; N = 1 begins a dialogue.
    Raises DataError naming the line for anything else.
    """
    examples = list(_examples(source, history))
    if not examples:
        raise DataError(f"{source}: holds no dialogue turn; give ParlAI text with tab-separated turns")
    with writing(target, DISK_REMEDY):
        target.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples), encoding="utf-8")
    return len(examples)


def _examples(source: Path, history: int | None) -> Iterator[dict[str, object]]:
    persona: list[str] = []
    turns: list[str] = []
    dialogue = -1
    for number, line in text_lines(source):
        found = NUMBERED.match(line)
        if not found:
            raise DataError.at(source, number, f"{line[:40]!r} begins with no number and space; give ParlAI text")
        if found[1] == "1":
            persona, turns, dialogue = [], [], dialogue + 1
        text = found[2].strip()
        if text.startswith(PERSONA):
            persona.append(text.removeprefix(PERSONA).strip().rstrip(".").strip())
        elif not text.startswith(OTHER_PERSONA):
            partner, reply = _turn(source, number, text)
            turns.append(f"Q: {partner}")
            yield {
                "id": f"{dialogue}-{len(turns) // 2}",
                "question": question_of("".join(f"{p}. " for p in persona), turns, history),
                "answers": [reply],
            }
            turns.append(f"R: {reply}")


def question_of(persona: str, turns: Sequence[str], history: int | None) -> str:
    """LAPDOG's form of the last `history` turns, each `Q: ...` or `R: ...`; None keeps all."""
    return f"persona: {persona.strip()}{' ' if persona.strip() else ''}context:  {' '.join(turns[-(history or 0) :])}"


def _turn(source: Path, number: int, text: str) -> tuple[str, str]:
    fields = [field.strip() for field in text.split("\t")]
    if len(fields) < 2 or not fields[0] or not fields[1]:
        raise DataError.at(source, number, f"{text[:40]!r} is no turn; write the partner's turn, a tab, and the reply")
    return fields[0], fields[1]
