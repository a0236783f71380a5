"""Groups of a run's sample logs: of steps spread over the run, with what was read, said and rewarded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.report.bounded import LONGEST_NAME, TEXT_BUDGET, Excerpt, cut, evenly, mean, rounded, within_budget
from cluster.store.rows import Row, finite
from learner.samples import COLUMNS, PARTS

STEPS_WITH_GROUPS = 24
GROUPS_PER_STEP = 16
RESPONSES_PER_GROUP = 64
PASSAGES_PER_GROUP = 20
ANSWERS_PER_GROUP = 20


def sampled_groups(logs: Sequence[tuple[int, Path]]) -> dict[str, Any]:
    """Groups of steps spread over the run, first and last among them; their passages, once each; how many steps have any; how
    many of the files that were chosen hold none, as a log that was copied in part."""
    groups: list[dict[str, Any]] = []
    passages: dict[tuple[str, str], int] = {}
    unreadable = 0
    for step, log in (logs[i] for i in evenly(len(logs), STEPS_WITH_GROUPS)):
        try:
            found = _rows_of_groups(log)
        except (pa.ArrowException, OSError):
            unreadable += 1
            continue
        groups += [_group(step, responses, passages) for responses in found]
    texts = [[Excerpt(title), Excerpt(text)] for title, text in passages]
    held = within_budget({"groups": groups, "passages": texts}, TEXT_BUDGET)
    return {**held, "sampled_steps": len(logs), "unreadable_samples": unreadable}


def _rows_of_groups(log: Path) -> list[list[Row]]:
    """Of the first groups in it."""
    table = pq.read_table(log)
    columns = [(column.name, column.type) for column in table.schema]
    if any(column not in columns for column in COLUMNS):
        raise pa.ArrowInvalid(f"{log}: is no sample log")
    places: dict[tuple[int, str], list[int]] = {}
    for place, prompt in enumerate(zip(table["epoch"].to_pylist(), table["id"].to_pylist(), strict=True)):
        places.setdefault(prompt, []).append(place)
    return [finite(table.take(own).to_pylist()) for own in list(places.values())[:GROUPS_PER_STEP]]


def _group(step: int, responses: Sequence[Row], passages: dict[tuple[str, str], int]) -> dict[str, Any]:
    prompt = responses[0]
    rewards = [row["reward"] for row in responses if row["reward"] is not None]
    return {
        "step": step,
        "epoch": prompt["epoch"],
        "id": cut(prompt["id"], LONGEST_NAME),
        "version": prompt["version"],
        "question": Excerpt(prompt["question"]),
        "answers": [Excerpt(answer) for answer in prompt["answers"][:ANSWERS_PER_GROUP]],
        "passages": _passages(prompt, passages),
        "read": len(prompt["passages"]),
        "drawn": len(responses),
        "rewards": [mean(rewards), rounded(min(rewards)), rounded(max(rewards))] if rewards else None,
        "responses": [_response(row) for row in _shown(responses)],
    }


def _passages(prompt: Row, passages: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    columns = (prompt[name] for name in ("passage_titles", "passages", "passage_ids", "retrieval_scores"))
    found = list(zip(*columns, strict=True))[:PASSAGES_PER_GROUP]
    parts = {name: prompt[column] for column, name in PARTS.items() if prompt.get(column)}
    return [
        {
            "text": passages.setdefault((title, text), len(passages)),
            "id": cut(id, LONGEST_NAME),
            "score": rounded(score),
            **{name: rounded(scores[i]) for name, scores in parts.items()},
            "gold": id in prompt["gold"],
        }
        for i, (title, text, id, score) in enumerate(found)
    ]


def _shown(responses: Sequence[Row]) -> Sequence[Row]:
    """Of too many the best, the worst and others evenly between."""
    if len(responses) <= RESPONSES_PER_GROUP:
        return responses
    ordered = sorted(responses, key=lambda row: float("-inf") if row["reward"] is None else row["reward"], reverse=True)
    return [ordered[i] for i in evenly(len(ordered), RESPONSES_PER_GROUP)]


def _response(row: Row) -> dict[str, Any]:
    known = {*(name for name, _ in COLUMNS), *PARTS}
    return {
        "response": Excerpt(row["response"]),
        "reward": rounded(row["reward"]),
        "advantage": rounded(row["advantage"]),
        "tokens": row["tokens"],
        "finished": row["finished"],
        "parts": {name: rounded(value) for name, value in row.items() if name not in known},
    }
