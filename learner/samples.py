"""The sample log: one parquet file a step, one row a response."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsFloat

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import writing
from rollout.types import Group, RankingName, Retrieval

TEXTS = pa.list_(pa.string())
COLUMNS = [
    ("id", pa.string()),
    ("epoch", pa.int64()),
    ("question", pa.string()),
    ("answers", TEXTS),
    ("gold", TEXTS),
    ("passages", TEXTS),
    ("passage_titles", TEXTS),
    ("passage_ids", TEXTS),
    ("retrieval_scores", pa.list_(pa.float64())),
    ("response", pa.string()),
    ("reward", pa.float32()),
    ("advantage", pa.float32()),
    ("tokens", pa.int64()),
    ("finished", pa.bool_()),
    ("version", pa.list_(pa.int64())),
]
# columns that groups of a hybrid retriever have beside
PARTS: dict[str, RankingName] = {"lexical_scores": "lexical", "dense_scores": "dense"}


def write_samples(path: Path, groups: Sequence[Group], advantages: Sequence[Sequence[float]]) -> None:
    """Write every response of scored groups with its reward parts; advantages [P, G]."""
    rows = [
        {
            "id": group.prompt.id,
            "epoch": group.prompt.epoch,
            "question": group.prompt.question,
            "answers": list(group.prompt.answers),
            "gold": list(group.prompt.gold),
            "passages": [passage.text for passage in group.retrieval.passages],
            "passage_titles": [passage.title for passage in group.retrieval.passages],
            "passage_ids": [passage.id for passage in group.retrieval.passages],
            "retrieval_scores": list(group.retrieval.scores),
            "response": response.text,
            "reward": None if group.rewards is None else _finite(group.rewards[i]),
            **{name: _finite(part[i]) for name, part in group.reward_parts.items()},
            "advantage": _finite(advantages[p][i]),
            "tokens": len(response.token_ids),
            "finished": response.finished,
            "version": list(group.version),
            **_part_scores(group.retrieval),
        }
        for p, group in enumerate(groups)
        for i, response in enumerate(group.responses)
    ]
    beside = [(name, pa.float32()) for name in groups[0].reward_parts]
    if any(group.retrieval.parts for group in groups):
        beside += [(name, pa.list_(pa.float64())) for name in PARTS]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")  # a report may be made at any time
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([*COLUMNS, *beside])), draft, compression="zstd")
        draft.replace(path)


def _part_scores(retrieval: Retrieval) -> dict[str, list[float]]:
    return {column: list(retrieval.parts[name].scores) for column, name in PARTS.items() if name in retrieval.parts}


def _finite(value: SupportsFloat) -> float | None:
    """Null where a reward does not apply or a number is beyond all bounds."""
    return float(value) if math.isfinite(float(value)) else None
