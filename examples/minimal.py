"""The whole algorithm in one process, without Ray: what `launch.py train` does, one call after the other.

python -m examples.minimal
"""

import tempfile
from pathlib import Path

from learner.config import LearnerSettings, Stage
from learner.learner import Learner
from learner.update_metrics import UpdateMetrics
from reward.config import RewardSettings
from reward.scorer import Scorer
from rollout.config import DataSettings, PolicySettings, RolloutSettings
from rollout.data.dataset import PromptOrder, read_prompts
from rollout.data.demo import write_demo
from rollout.policy.tiny import build_tiny_policy
from rollout.retrieval.open import open_retriever
from rollout.sampler import Sampler
from rollout.types import Version

POLICY = PolicySettings(prompt_template="{question}", passage_template="{query} {title} {text}")
ROLLOUT = RolloutSettings(group_size=8, max_new_tokens=16)
STAGES = (
    Stage(name="supervised", mode="gold", first=1, steps=200, prompts_per_step=32, lr=1e-3, lr_warmup_steps=50),
    Stage(name="rl", mode="sample", first=201, steps=20, prompts_per_step=16, lr=3e-4, lr_warmup_steps=5),
)


def train(folder: Path, stages: tuple[Stage, ...] = STAGES, seed: int = 0) -> list[UpdateMetrics]:
    """Train a small T5 on the demo's world, written into `folder` -> what each step reports."""
    write_demo(folder, seed)
    prompts = read_prompts(folder / "train.jsonl")
    texts = [text for prompt in prompts for text in (prompt.question, *prompt.answers)]
    data = DataSettings(passages=folder / "passages.jsonl", cache=folder / "cache", language="en")
    policy, copy = (build_tiny_policy(POLICY, texts, seed) for _ in range(2))  # what is trained, what is sampled
    sampler = Sampler(copy, open_retriever(data, POLICY.n_context), ROLLOUT, seed)
    scorer = Scorer(RewardSettings())
    learner = Learner(policy, LearnerSettings(), ROLLOUT, POLICY, RewardSettings().weights())
    history = []
    for stage in stages:
        learner.begin(stage)  # a new optimiser; for RL the reference, which is the policy as it stands now
        order = PromptOrder(prompts, seed)
        for step in range(stage.first, stage.last + 1):
            sampler.load_weights(learner.weights(), Version(0, step))
            groups = sampler.sample(order.take(stage.prompts_per_step), stage.mode, Version(0, step)).groups
            scored = scorer.score_all(groups) if stage.sampled else groups
            metrics, _ = learner.update(scored, step)  # advantages, clipped ratio, KL to the reference, one step
            history.append(metrics)
            print(f"{stage.name:>10} {step:>4}  loss {metrics.loss:.4f}  reward {metrics.reward}")
    return history


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        train(Path(place))
