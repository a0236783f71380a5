"""Groups as a file, bit for bit: Arrow, so that reading one runs no code of the file's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import writing
from rollout.types import Group, PartRanking, Passage, Prompt, Response, Retrieval, Version

FLOATS, TOKENS = pa.list_(pa.float32()), pa.list_(pa.int32())
RESPONSE = pa.struct(
    [
        ("text", pa.string()),
        ("token_ids", TOKENS),
        ("sampler_logprobs", FLOATS),
        ("mask", pa.list_(pa.bool_())),
        ("finished", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("retrieval", pa.string()),
        ("context_ids", pa.list_(TOKENS)),
        ("responses", pa.list_(RESPONSE)),
        ("version", pa.list_(pa.int64())),
        ("rewards", FLOATS),
        ("reward_parts", pa.list_(pa.struct([("name", pa.string()), ("values", FLOATS)]))),
    ]
)


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    with writing(path):
        pq.write_table(pa.Table.from_pylist([_row(group) for group in groups], SCHEMA), path, compression="zstd")


def read_groups(path: Path) -> list[Group]:
    return [_group(row) for row in pq.read_table(path, schema=SCHEMA).to_pylist()]


def _row(group: Group) -> dict[str, Any]:
    return {
        "prompt": json.dumps(asdict(group.prompt)),
        "retrieval": json.dumps(_without_empty_parts(asdict(group.retrieval))),
        "context_ids": list(group.context_ids),
        "responses": [asdict(response) for response in group.responses],
        "version": list(group.version),
        "rewards": group.rewards,
        "reward_parts": [{"name": name, "values": values} for name, values in group.reward_parts.items()],
    }


def _group(row: dict[str, Any]) -> Group:
    prompt, retrieval = json.loads(row["prompt"]), json.loads(row["retrieval"])
    own = prompt.pop("passages")
    return Group(
        prompt=Prompt(
            passages=None if own is None else _passages(own),
            **prompt | {name: tuple(prompt.get(name, ())) for name in ("answers", "gold", "absent_gold")},
        ),
        retrieval=Retrieval(
            passages=_passages(retrieval["passages"]),
            scores=tuple(retrieval["scores"]),
            ranking=tuple(retrieval["ranking"]),
            parts={name: _part(part) for name, part in retrieval.get("parts", {}).items()},
        ),
        context_ids=tuple(np.array(ids, np.int32) for ids in row["context_ids"]),
        responses=tuple(_response(response) for response in row["responses"]),
        version=Version(*row["version"]),
        rewards=None if row["rewards"] is None else np.array(row["rewards"], np.float32),
        reward_parts={part["name"]: np.array(part["values"], np.float32) for part in row["reward_parts"]},
    )


def _without_empty_parts(retrieval: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in retrieval.items() if name != "parts" or value}


def _part(told: Mapping[str, Sequence[Any]]) -> PartRanking:
    return PartRanking(scores=tuple(told["scores"]), ranking=tuple(told["ranking"]))


def _response(row: dict[str, Any]) -> Response:
    return Response(
        text=row["text"],
        token_ids=np.array(row["token_ids"], np.int32),
        sampler_logprobs=np.array(row["sampler_logprobs"], np.float32),
        mask=np.array(row["mask"], np.bool_),
        finished=row["finished"],
    )


def _passages(rows: list[dict[str, str]]) -> tuple[Passage, ...]:
    return tuple(Passage(**row) for row in rows)
