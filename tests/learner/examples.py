"""A tiny learner and batches for it: sampled groups with made-up rewards, and gold answers."""

from dataclasses import replace

import numpy as np

from learner.config import LearnerSettings, Stage
from learner.learner import Learner
from rollout.config import RolloutSettings
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler
from rollout.types import Group, Version
from tests.rollout.tiny import PROMPTS, SETTINGS, tiny_policy

ROLLOUT = RolloutSettings(group_size=4, max_new_tokens=6, temperature=1.2)
SUPERVISED = Stage(name="supervised", mode="gold", first=1, steps=40, prompts_per_step=4, lr=3e-3, lr_warmup_steps=0)
RL = Stage(name="rl", mode="sample", first=1, steps=40, prompts_per_step=4, lr=1e-3, lr_warmup_steps=0)


def new_learner(stage: Stage = RL, **settings) -> Learner:
    learner = Learner(tiny_policy(), LearnerSettings(**settings), ROLLOUT, SETTINGS, {"f1": 1.0})
    learner.begin(stage)
    return learner


def groups_of(learner: Learner, epoch: int = 0) -> list[Group]:
    """What samplers with the learner's weights would give in its stage, the groups of RL scored at random."""
    sampler = Sampler(learner.policy, Retriever(SETTINGS.n_context), ROLLOUT, seed=0)
    prompts = [replace(prompt, epoch=epoch) for prompt in PROMPTS]
    groups = sampler.sample(prompts, learner.stage.mode, Version(0, 0)).groups
    if learner.stage.mode == "gold":
        return groups
    rng = np.random.default_rng(epoch)
    rewards = rng.random((len(groups), ROLLOUT.group_size), np.float32)
    return [replace(g, rewards=r, reward_parts={"f1": r / 2}) for g, r in zip(groups, rewards, strict=True)]


def check_trained_and_saved(learner, folder):
    """One step of RL changes the weights, with a ratio of one; the learner is saved afterwards."""
    learner.begin(RL)
    before = learner.weights().values.copy()
    metrics, _ = learner.update(groups_of(learner), 1)
    assert metrics.skipped == 0 and abs(metrics.ratios["ratio_max"] - 1) < 1e-5
    assert (learner.weights().values != before).any()
    learner.save(folder)
