"""Groups of a run's sample logs: of steps spread over the run, with what was read, said and rewarded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.report.bounded import LONGEST_NAME, TEXT_BUDGET, Excerpt, cut, evenly, mean, rounded, within_budget
from cluster.store.rows import Row, finite
from learner.samples import COLUMNS

STEPS_WITH_GROUPS = 24
GROUPS_PER_STEP = 16
RESPONSES_PER_GROUP = 64
PASSAGES_PER_GROUP = 20
ANSWERS_PER_GROUP = 20
ROWS_AT_ONCE = 64
OF_PROMPT = ("question", "answers", "gold", "passages", "passage_titles", "passage_ids", "retrieval_scores", "version")


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
        groups += [_group(step, prompt, responses, passages) for prompt, responses in found]
    texts = [[Excerpt.of(title), Excerpt.of(text)] for title, text in passages]
    held = within_budget({"groups": groups, "passages": texts}, TEXT_BUDGET)
    return {**held, "sampled_steps": len(logs), "unreadable_samples": unreadable}


def _rows_of_groups(log: Path) -> list[tuple[Row, list[Row]]]:
    """(what is the same in all its rows, its rows without that) of each group. The same stands in every row of the file and may
    be long, so it is read in small parts."""
    with pq.ParquetFile(log) as file:
        columns = [(column.name, column.type) for column in file.schema_arrow]
        if any(column not in columns for column in COLUMNS):
            raise pa.ArrowInvalid(f"{log}: is no sample log")
        names = file.schema_arrow.names
        by_prompt: dict[tuple[int, str], list[Row]] = {}
        firsts: list[int] = []
        for place, row in enumerate(finite(file.read(columns=[name for name in names if name not in OF_PROMPT]).to_pylist())):
            group = by_prompt.setdefault((row["epoch"], row["id"]), [])
            if not group:
                firsts.append(place)
            group.append(row)
        firsts = firsts[:GROUPS_PER_STEP]
        prompts: list[Row] = []
        start = 0
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[name for name in names if name in OF_PROMPT]):
            prompts += [finite(batch.slice(i - start, 1).to_pylist()[0]) for i in firsts if start <= i < start + len(batch)]
            start += len(batch)
    return list(zip(prompts, by_prompt.values(), strict=False))


def _group(step: int, prompt: Row, responses: Sequence[Row], passages: dict[tuple[str, str], int]) -> dict[str, Any]:
    rewards = [row["reward"] for row in responses if row["reward"] is not None]
    return {
        "step": step,
        "epoch": responses[0]["epoch"],
        "id": cut(responses[0]["id"], LONGEST_NAME),
        "version": prompt["version"],
        "question": Excerpt.of(prompt["question"]),
        "answers": [Excerpt.of(answer) for answer in prompt["answers"][:ANSWERS_PER_GROUP]],
        "passages": _passages(prompt, passages),
        "read": len(prompt["passages"]),
        "drawn": len(responses),
        "rewards": [mean(rewards), rounded(min(rewards)), rounded(max(rewards))] if rewards else None,
        "responses": [_response(row) for row in _shown(responses)],
    }


def _passages(prompt: Row, passages: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    columns = (prompt[name] for name in ("passage_titles", "passages", "passage_ids", "retrieval_scores"))
    found = list(zip(*columns, strict=True))[:PASSAGES_PER_GROUP]
    return [
        {
            "text": passages.setdefault((title, text), len(passages)),
            "id": cut(id, LONGEST_NAME),
            "score": rounded(score),
            "gold": id in prompt["gold"],
        }
        for title, text, id, score in found
    ]


def _shown(responses: Sequence[Row]) -> Sequence[Row]:
    """Of too many the best, the worst and others evenly between."""
    if len(responses) <= RESPONSES_PER_GROUP:
        return responses
    ordered = sorted(responses, key=lambda row: float("-inf") if row["reward"] is None else row["reward"], reverse=True)
    return [ordered[i] for i in evenly(len(ordered), RESPONSES_PER_GROUP)]


def _response(row: Row) -> dict[str, Any]:
    known = {name for name, _ in COLUMNS}
    return {
        "response": Excerpt.of(row["response"]),
        "reward": rounded(row["reward"]),
        "advantage": rounded(row["advantage"]),
        "tokens": row["tokens"],
        "finished": row["finished"],
        "parts": {name: rounded(value) for name, value in row.items() if name not in known},
    }
