"""What actors get of a cluster's GPUs."""

import pytest

from cluster.actors.session import gpu_shares, roles_with_gpus
from cluster.settings.tree import ClusterSettings, Settings


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


@pytest.mark.parametrize(("gpus", "set_by_user", "warned"), [(1, {"learner_gpus": 1.0}, True), (1, {}, False), (0, {}, False)])
def test_samplers_without_a_gpu_are_warned_of_where_the_cluster_has_one(
    gpus: float,
    set_by_user: dict[str, float],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": gpus})
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Labels": {}, "Resources": {"CPU": 64.0}}])
    roles = roles_with_gpus(Settings(cluster=ClusterSettings(**set_by_user)))
    assert (roles["sampler"].gpus == 0) == (warned or gpus == 0)
    assert ("warning: no GPU is left for samplers" in capsys.readouterr().err) == warned
