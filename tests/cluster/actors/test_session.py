"""What actors get of a cluster's GPUs."""

import pytest

from cluster.actors.session import gpu_shares
from cluster.settings.tree import ClusterSettings


@pytest.mark.parametrize(
    ("gpus", "set_by_user", "learner", "sampler"),
    [
        (0, {}, 0, 0),
        (1, {}, 0.5, 0.25),  # two samplers share what the learner leaves
        (2, {}, 1, 0.5),
        (4, {}, 1, 1),  # a sampler takes at most one
        (0.5, {}, 0.5, 0),  # a reward took the other half
        (1.5, {}, 0.5, 0.5),
        (4, {"samplers": 6}, 1, 0.5),
        (4, {"learner_gpus": 3.0}, 3, 0.5),
        (4, {"sampler_gpus": 0.2}, 1, 0.2),
    ],
)
def test_learner_and_samplers_share_the_gpus_that_rewards_leave(
    gpus: float, set_by_user: dict[str, float], learner: float, sampler: float
) -> None:
    assert gpu_shares(gpus, ClusterSettings(**set_by_user)) == (learner, sampler)
