"""The minimal loop trains both stages."""

from dataclasses import replace
from pathlib import Path

from examples.minimal import STAGES, train


def test_the_minimal_loop_trains_both_stages(tmp_path: Path) -> None:
    supervised, rl = STAGES
    stages = (replace(supervised, steps=3), replace(rl, first=4, steps=2, prompts_per_step=2))
    rewards = train(tmp_path, stages)
    assert rewards[:3] == [None] * 3 and all(reward is not None and reward >= 0 for reward in rewards[3:])
