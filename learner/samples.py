"""The sample log: one parquet file a step, one row a response."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rollout.errors import writing
from rollout.types import Group

TEXTS = pa.list_(pa.string())
COLUMNS = [
    ("id", pa.string()),
    ("epoch", pa.int64()),
    ("question", pa.string()),
    ("answers", TEXTS),
    ("gold", TEXTS),
    ("passages", TEXTS),
    ("passage_ids", TEXTS),
    ("retrieval_scores", pa.list_(pa.float64())),
    ("response", pa.string()),
    ("reward", pa.float32()),
    ("advantage", pa.float32()),
    ("tokens", pa.int64()),
    ("finished", pa.bool_()),
    ("version", pa.list_(pa.int64())),
]


def write_samples(path: Path, groups: Sequence[Group], advantages: torch.Tensor) -> None:
    """Write every response of scored groups with its reward parts; advantages [P, G]."""
    rows = [
        {
            "id": group.prompt.id,
            "epoch": group.prompt.epoch,
            "question": group.prompt.question,
            "answers": list(group.prompt.answers),
            "gold": list(group.prompt.gold),
            "passages": [passage.text for passage in group.retrieval.passages],
            "passage_ids": [passage.id for passage in group.retrieval.passages],
            "retrieval_scores": list(group.retrieval.scores),
            "response": response.text,
            "reward": _value(group.rewards, i),
            **{name: _value(part, i) for name, part in group.reward_parts.items()},
            "advantage": float(advantages[p, i]),
            "tokens": len(response.token_ids),
            "finished": response.finished,
            "version": list(group.version),
        }
        for p, group in enumerate(groups)
        for i, response in enumerate(group.responses)
    ]
    parts = [(name, pa.float32()) for name in groups[0].reward_parts]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([*COLUMNS, *parts])), path, compression="zstd")


def _value(values: np.ndarray | None, i: int) -> float | None:
    """Null where a reward does not apply."""
    return None if values is None or np.isnan(values[i]) else float(values[i])
