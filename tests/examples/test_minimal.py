"""The minimal loop trains both stages."""

from dataclasses import replace
from pathlib import Path

from examples.minimal import STAGES, train


def test_the_minimal_loop_trains_both_stages(tmp_path: Path) -> None:
    supervised, rl = STAGES
    stages = (
        replace(supervised, steps=8, prompts_per_step=4, lr_warmup_steps=2),
        replace(rl, first=9, steps=2, prompts_per_step=2),
    )
    *gold, first, second = train(tmp_path, stages)
    assert all(step.reward is None for step in gold) and gold[-1].loss < 0.9 * gold[0].loss
    assert first.reward is not None and first.grad_norm > 0
    assert second.kl is not None and second.kl > 1e-4  # of the reference, which is the policy as it stood before
