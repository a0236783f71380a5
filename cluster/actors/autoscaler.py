"""Samplers come and go with the cluster's nodes."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors.index_port import IndexPort
from cluster.actors.learner_port import LearnerPort
from cluster.actors.ports import RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import Resources, RoleKind, Roles, placed_before_samplers
from cluster.actors.session import bears_samplers
from cluster.actors.tasks import Event, cancel_quietly, log_failure
from cluster.settings.actor_settings import ClusterSettings
from rollout.errors import first_line


class Autoscaler:
    """Looks at the cluster's nodes from time to time: replicas of those that have left are replaced, with `cluster.samplers`
    auto there are as many samplers as fit, and some make room for a learner, reward actors or index actors that find none."""

    def __init__(
        self,
        settings: ClusterSettings,
        roles: Roles,
        samplers: SamplerPort,
        rewards: RewardPort,
        learner: LearnerPort,
        index: IndexPort,
        retry: RetryPolicy,
        event: Event,
    ):
        self._settings, self._roles, self._retry, self._event = settings, roles, retry, event
        self._samplers, self._rewards = samplers, rewards
        self._first = learner, rewards, index  # they find places before samplers
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())
        log_failure(self._watching, "nodes that join or leave are no longer noticed", self._event)

    def close(self) -> None:
        if self._watching is not None:
            cancel_quietly(self._watching)

    async def follow(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Act on nodes as `ray.nodes()` lists them, and on those before samplers that Ray finds no room for."""
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        waiting_s = max([await port.without_a_place_s() for port in self._first])
        in_the_way = int(waiting_s // self._retry.make_room_s)
        size = max(1, samplers_that_fit(nodes, self._settings, self._roles) - in_the_way)
        self._samplers.drop_nodes(alive)
        self._rewards.drop_nodes(alive)
        if size != self._samplers.size:
            why = "to make room for the others" if in_the_way else f"nodes: {len(alive)}"
            self._event(f"samplers: {self._samplers.size} -> {size}, {why}")
            self._samplers.resize(size)

    async def _watch(self) -> None:
        while True:
            try:
                await self.follow(await asyncio.to_thread(ray.nodes))
            except (RayError, OSError) as error:
                self._event(f"the cluster's nodes cannot be listed ({first_line(error)}); asking again")
            await asyncio.sleep(self._retry.look_s)


def samplers_that_fit(nodes: Sequence[Mapping[str, Any]], settings: ClusterSettings, roles: Roles) -> int:
    """Of nodes as `ray.nodes()` lists them, once the learner and the reward actors have their places; within the bounds.

    A fixed number is what it is, whether it fits or not.
    """
    if settings.samplers != "auto":
        return settings.samplers
    alive = [node for node in nodes if node["Alive"]]
    free = [dict(node["Resources"]) for node in alive]
    for wanted in (role.resources for role in placed_before_samplers(roles) for _ in range(role.count)):
        place = next((room for room in free if _times(room, wanted)), None)
        if place is not None:
            for resource, amount in wanted.items():
                place[resource] = place.get(resource, 0.0) - amount
    rooms = [room for node, room in zip(alive, free, strict=True) if bears_samplers(node, settings)]
    fit = sum(_times(room, roles[RoleKind.SAMPLER].resources) for room in rooms)
    return max(settings.min_samplers, fit if settings.max_samplers is None else min(fit, settings.max_samplers))


def _times(room: Resources, wanted: Resources) -> int:
    """How often `wanted` fits into `room`."""
    return min((int(room.get(resource, 0.0) / amount + 1e-9) for resource, amount in wanted.items() if amount), default=0)
