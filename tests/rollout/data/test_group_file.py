import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rollout.data.group_file import read_groups, write_groups
from rollout.errors import CheckpointError
from rollout.types import Group, PartRanking, Passage, Prompt, Response, Retrieval, Version

PASSAGE = Passage(id="p-1", title="Ünï \u2028 <b>", text='"quoted"\n')
EXTRA = {"limit": 0.1 + 0.2, "big": 1 << 70, "tags": ["Ü\u2028", None, True], "by": {"name": "x", "none": {}}}
PROMPT = Prompt(id="1", question="q ?", answers=("a", "b"), passages=(PASSAGE,), gold=("p-1",), epoch=3, attempt=1, extra=EXTRA)
RESPONSE = Response(
    text="x\ty",
    token_ids=np.array([5, 1], np.int32),
    sampler_logprobs=np.array([-0.1, np.nextafter(np.float32(-2), np.float32(0))], np.float32),
    mask=np.array([True, False]),
    finished=True,
)


def group(prompt: Prompt = PROMPT, rewards: np.ndarray | None = None, **parts: np.ndarray) -> Group:
    nothing = np.array([], np.float32)
    empty = Response(
        text="", token_ids=nothing.astype(np.int32), sampler_logprobs=nothing, mask=nothing.astype(np.bool_), finished=False
    )
    return Group(
        prompt=prompt,
        retrieval=Retrieval(passages=(PASSAGE,), scores=(0.1 + 0.2,), ranking=("p-1", "p-2")),
        context_ids=(np.array([3, 4, 1], np.int32), np.array([], np.int32)),
        responses=(RESPONSE, empty),
        version=Version(2, 17),
        rewards=rewards,
        reward_parts=parts,
    )


def same(one: object, other: object) -> bool:
    """Equal to the last bit, types of arrays included."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(
            same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__
        )
    return type(one) is type(other) and one == other


def test_groups_come_back_bit_for_bit(tmp_path: Path) -> None:
    rewards = np.array([np.float32(1) / 3, -0.0], np.float32)
    groups = [
        group(rewards=rewards, f1=rewards * 2, extra=np.array([np.nan, 1], np.float32)),
        group(Prompt(id="2", question="q", answers=("a",), passages=None)),
        group(Prompt(id="3", question="q", answers=("a",), passages=())),
    ]
    parts = {"lexical": PartRanking(scores=(2.5,), ranking=("p-2",)), "dense": PartRanking(scores=(0.1,), ranking=())}
    groups.append(replace(groups[0], retrieval=replace(groups[0].retrieval, parts=parts)))
    write_groups(tmp_path / "groups.parquet", groups)
    back = read_groups(tmp_path / "groups.parquet")
    assert same(tuple(back), tuple(groups))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no/groups.parquet: cannot be written"):
        write_groups(tmp_path / "no" / "groups.parquet", [group()])


def test_what_one_score_found_is_written_as_if_there_were_no_parts(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.parquet", [group()])
    [told] = pq.read_table(tmp_path / "groups.parquet")["retrieval"].to_pylist()
    assert list(json.loads(told)) == ["passages", "scores", "ranking"]
