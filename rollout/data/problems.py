"""A row's first mistake in one line that names place, value and remedy."""

from pydantic import BaseModel, ValidationError

from rollout.data.rows import PassageRow


def first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """kind: the model that the row was read as."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        nested = len(problem["loc"]) > 1  # passages.0.text
        return f"lacks the key {place!r}; the keys are {', '.join((PassageRow if nested else kind).model_fields)}"
    if problem["type"] in ("string_pattern_mismatch", "string_too_short", "too_short"):
        return f"{place!r} is empty; fill it in or remove the line"
    if place:
        return f"{place!r} is {problem['input']!r:.60}: {problem['msg'].lower()}; correct it"
    return "is no JSON object; put keys and values in braces"
