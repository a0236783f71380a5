from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from learner.samples import write_samples
from rollout.types import PartRanking
from tests.learner.examples import RL, SUPERVISED, groups_of, new_learner


def test_every_response_is_a_row_with_its_reward_and_advantage(tmp_path):
    learner = new_learner(RL)
    groups = groups_of(learner, epoch=2)
    _, advantages = learner.update(groups, 1)
    write_samples(tmp_path / "new" / "step-1.parquet", groups, advantages.tolist())
    rows = pq.read_table(tmp_path / "new" / "step-1.parquet").to_pylist()
    assert len(rows) == 16
    row, group = rows[5], groups[1]  # the second response of the second group
    assert (row["id"], row["epoch"], row["answers"]) == ("q1", 2, list(group.prompt.answers))
    assert (row["passage_ids"], row["version"]) == (["s1"], [0, 0])
    assert row["passage_titles"] == [passage.title for passage in group.retrieval.passages]
    assert (row["response"], row["finished"]) == (group.responses[1].text, group.responses[1].finished)
    assert row["tokens"] == len(group.responses[1].token_ids)
    assert row["reward"] == pytest.approx(group.rewards[1]) and row["f1"] == pytest.approx(group.rewards[1] / 2)
    assert row["advantage"] == pytest.approx(float(advantages[1, 1]))


def test_gold_answers_have_no_reward(tmp_path):
    learner = new_learner(SUPERVISED)
    groups = groups_of(learner)
    _, advantages = learner.update(groups, 1)
    write_samples(tmp_path / "step-1.parquet", groups, advantages.tolist())
    rows = pq.read_table(tmp_path / "step-1.parquet").to_pylist()
    assert [(row["reward"], row["advantage"]) for row in rows] == [(None, 1.0)] * 4


def test_a_reward_that_does_not_apply_is_null(tmp_path):
    learner = new_learner(RL)
    groups = groups_of(learner)
    missing = np.array([np.nan, 1, 0, np.nan], np.float32)
    groups[0] = replace(groups[0], rewards=missing, reward_parts={"f1": missing})
    metrics, advantages = learner.update(groups, 1)
    write_samples(tmp_path / "step-1.parquet", groups, advantages.tolist())
    rows = pq.read_table(tmp_path / "step-1.parquet").to_pylist()[:4]
    assert [row["reward"] for row in rows] == [row["f1"] for row in rows] == [None, 1, 0, None]
    assert [row["advantage"] for row in rows][::3] == [0, 0]
    assert metrics.reward == pytest.approx(np.nanmean([group.rewards for group in groups]), rel=1e-6)
    assert metrics.reward_parts["f1"] == pytest.approx(np.nanmean([group.reward_parts["f1"] for group in groups]), rel=1e-6)


def test_what_is_beyond_all_bounds_is_null(tmp_path):
    learner = new_learner(RL)
    groups = groups_of(learner)
    vast = np.array([np.inf, 1, 0, 0], np.float32)
    groups[0] = replace(groups[0], rewards=vast, reward_parts={"f1": vast})
    advantages = torch.tensor([[float("nan")] * 4] * len(groups))
    write_samples(tmp_path / "step-1.parquet", groups, advantages.tolist())
    rows = pq.read_table(tmp_path / "step-1.parquet").to_pylist()
    assert [rows[0][name] for name in ("reward", "f1", "advantage")] == [None] * 3
    assert [file.name for file in tmp_path.iterdir()] == ["step-1.parquet"]


def test_both_scores_of_a_hybrid_are_columns_of_their_own(tmp_path):
    learner = new_learner(RL)
    groups = groups_of(learner)
    _, advantages = learner.update(groups, 1)
    write_samples(tmp_path / "plain.parquet", groups, advantages.tolist())
    assert not {"lexical_scores", "dense_scores"} & set(pq.read_schema(tmp_path / "plain.parquet").names)
    found = groups[0].retrieval
    scores = {"lexical": (0.5,) * len(found.passages), "dense": (1.5,) * len(found.passages)}
    parts = {name: PartRanking(scores=own, ranking=()) for name, own in scores.items()}
    groups[0] = replace(groups[0], retrieval=replace(found, parts=parts))
    write_samples(tmp_path / "hybrid.parquet", groups, advantages.tolist())
    rows = pq.read_table(tmp_path / "hybrid.parquet").to_pylist()
    assert (rows[0]["lexical_scores"], rows[0]["dense_scores"]) == tuple(map(list, scores.values()))
    assert rows[-1]["lexical_scores"] is None  # this prompt brought its passages along
