"""Every kind of actor of a run, how many there are, and what Ray sets aside for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cluster.settings.tree import Settings
from reward.config import ExtraReward

Resources = dict[str, float]


class RoleKind(StrEnum):
    """By the names that monitors show, in the order in which a run starts them. It stops them in the opposite one, in which
    they find places, too: samplers take what the others leave."""

    INDEX = "index"
    SAMPLER = "sampler"
    REWARD = "reward"
    RECORDS = "records"
    LEARNER = "learner"


@dataclass(frozen=True, slots=True)
class Role:
    """Actors of one kind. name: for users. count: how many, or the fewest. Of each, cpus, gpus (None for a share of those that
    there are), and own resources of the user's."""

    kind: RoleKind
    name: str
    count: int
    cpus: float
    gpus: float | None = 0.0
    own: Mapping[str, float] = field(default_factory=dict)

    @property
    def resources(self) -> Resources:
        return {"CPU": self.cpus, "GPU": self.gpus or 0.0, **self.own}


Roles = Mapping[str, Role]


def roles_of(settings: Settings) -> dict[str, Role]:
    """By the prefix of their actors' names: their kind or, of an extra reward that has actors for itself, `prefix_of`."""
    cluster, own = settings.cluster, [extra for extra in settings.reward.extra if extra.own_pool]
    resource = {cluster.sampler_resource: 1.0} if cluster.sampler_resource is not None else {}
    index, sampler, reward, records, learner = RoleKind
    return {
        index: Role(index, "index actor", settings.index_parts, 1.0),
        sampler: Role(sampler, "sampler", cluster.fewest_samplers, cluster.sampler_cpus, cluster.sampler_gpus, resource),
        reward: Role(reward, "reward actor", cluster.rewards, cluster.reward_cpus),
        **{prefix_of(each): Role(reward, each.column, each.pool_size, cluster.reward_cpus, each.gpus) for each in own},
        records: Role(records, "records actor", 1, 0.0),
        learner: Role(learner, "learner", 1, cluster.learner_cpus, cluster.learner_gpus),
    }


def prefix_of(extra: ExtraReward) -> str:
    """Of actors that one extra reward has for itself."""
    return f"{RoleKind.REWARD}-{extra.short_name}"


def placed_before_samplers(roles: Roles) -> list[Role]:
    """In the order in which they find places; of one kind those first that take most of a GPU."""
    kinds = list(RoleKind)
    others = [role for role in roles.values() if role.kind is not RoleKind.SAMPLER]
    return sorted(others, key=lambda role: (-kinds.index(role.kind), -(role.gpus or 0.0)))
