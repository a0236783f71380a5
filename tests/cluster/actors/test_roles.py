"""What Ray sets aside for every kind of actor, and where actors may lie."""

import pytest

from cluster.actors.factories import _placement
from cluster.actors.roles import Role, RoleKind, placed_before_samplers, roles_of
from cluster.settings.actor_settings import ClusterSettings
from cluster.settings.tree import Settings
from reward.config import ExtraReward, RewardSettings


def test_the_table_of_roles() -> None:
    own = (
        ExtraReward(function="rewards:judge", gpus=0.5, actors=2),
        ExtraReward(function="rewards:slow", name="lookup", actors=3),
    )
    data, retriever = {"passages": "p.jsonl"}, {"index_actors": 5}
    cluster = ClusterSettings(samplers=3, sampler_cpus=2, sampler_resource="places", rewards=4, learner_cpus=6, learner_gpus=1)
    extra = *own, ExtraReward(function="rewards:length")  # which the reward actors measure
    told = Settings(cluster=cluster, reward=RewardSettings(extra=extra), data=data, retriever=retriever)  # type: ignore[arg-type]
    assert list(roles_of(told).items()) == [
        ("index", Role(RoleKind.INDEX, "index actor", 5, 1.0)),
        ("sampler", Role(RoleKind.SAMPLER, "sampler", 3, 2.0, None, {"places": 1.0})),
        ("reward", Role(RoleKind.REWARD, "reward actor", 4, 0.5)),
        ("reward-judge", Role(RoleKind.REWARD, "extra/judge", 2, 0.5, 0.5)),
        ("reward-lookup", Role(RoleKind.REWARD, "extra/lookup", 3, 0.5)),
        ("records", Role(RoleKind.RECORDS, "records actor", 1, 0.0)),
        ("learner", Role(RoleKind.LEARNER, "learner", 1, 6.0, 1.0)),
    ]


def test_places_are_found_in_the_opposite_order_of_starts_and_those_on_a_gpu_first() -> None:
    own = [ExtraReward(function=f"rewards:{name}", gpus=gpus, actors=1) for name, gpus in (("a", 0), ("b", 0.5), ("c", 1))]
    placed = placed_before_samplers(roles_of(Settings(reward=RewardSettings(extra=tuple(own)))))
    rewards = ["extra/c", "extra/b", "reward actor", "extra/a"]
    assert [role.name for role in placed] == ["learner", "records actor", *rewards, "index actor"]


@pytest.mark.parametrize(
    "other",
    [{"data": {}}, {"retriever": {"index_actors": 5, "url": "http://host"}}, {"policy": {"n_context": 0}}],
)
def test_no_actor_holds_an_index_that_nobody_searches(other: dict[str, object]) -> None:
    told = {"data": {"passages": "p.jsonl"}, "retriever": {"index_actors": 5}}
    assert roles_of(Settings.model_validate(told))["index"].count == 5
    assert roles_of(Settings.model_validate(told | other))["index"].count == 0


def test_of_samplers_that_follow_the_cluster_there_are_the_fewest() -> None:
    cluster = ClusterSettings(samplers="auto", min_samplers=2)
    assert roles_of(Settings(cluster=cluster))["sampler"].count == 2


def test_a_role_takes_its_own_resource_and_no_gpu_until_it_has_a_share() -> None:
    assert Role(RoleKind.SAMPLER, "sampler", 1, 2.0, None, {"places": 1.0}).resources == {"CPU": 2.0, "GPU": 0.0, "places": 1.0}


LABEL, AWAY = {"role": "sampler"}, "!in(a, b)"


@pytest.mark.parametrize(
    ("labels", "avoid", "placed"),
    [
        ({}, (), {}),
        (LABEL, (), {"label_selector": LABEL}),
        ({}, ("a", "b"), {"label_selector": {"ray.io/node-id": AWAY}, "fallback_strategy": [{"label_selector": {}}]}),
        (
            LABEL,
            ("a", "b"),
            {"label_selector": {**LABEL, "ray.io/node-id": AWAY}, "fallback_strategy": [{"label_selector": LABEL}]},
        ),
    ],
)
def test_an_actor_lies_where_its_label_is_and_away_from_some_nodes_while_others_have_room(
    labels: dict[str, str], avoid: tuple[str, ...], placed: dict[str, object]
) -> None:
    assert _placement(labels, avoid) == placed
