"""The part of a question that passages are searched with; LAPDOG's `persona: ... context: Q: ... R: ...` form."""

import re

PERSONA = re.compile(r".*?persona(?: for R)?:(.*?)(?:context:.*|dialog:.*|$)", re.DOTALL)
CONTEXT = re.compile(r".*?(?:context|dialog):(.*)", re.DOTALL)
TURN = re.compile(r"(?:^|\s)[QR]:\s")


def build_query(question: str, part: str) -> str:
    """`persona`, `last_turn`, both, or `all` of `question`; a question without the markers is its own query."""
    match part:
        case "all":
            return question
        case "persona":
            return _persona(question)
        case "last_turn":
            return _last_turn(question)
        case "persona+last_turn":
            persona, turn = _persona(question), _last_turn(question)
            return persona if turn == persona else f"{persona} {turn}"
    raise ValueError(f"unknown part of a question: {part!r}")


def _persona(question: str) -> str:
    found = PERSONA.match(question)
    return found[1].strip() if found and found[1].strip() else question.strip()


def _last_turn(question: str) -> str:
    found = CONTEXT.match(question)
    turns = [turn for turn in TURN.split(found[1] if found else question) if turn.strip()]
    return turns[-1].strip() if turns and (found or not PERSONA.match(question)) else _persona(question)
