"""The sample log: one parquet file a step, one row a response."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rollout.types import Group


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
            "reward": None if group.rewards is None else float(group.rewards[i]),
            **{name: float(part[i]) for name, part in group.reward_parts.items()},
            "advantage": float(advantages[p, i]),
            "tokens": len(response.token_ids),
            "finished": response.finished,
            "version": list(group.version),
        }
        for p, group in enumerate(groups)
        for i, response in enumerate(group.responses)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
