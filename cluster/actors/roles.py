"""Every kind of actor of a run, how many there are, and what Ray sets aside for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.settings.tree import Settings
from reward.config import ExtraReward

Resources = dict[str, float]


@dataclass(frozen=True, slots=True)
class Role:
    """Actors of one kind. name: for users. count: how many, or the fewest. Of each, cpus, gpus (None for a share of those that
    there are), and own resources of the user's."""

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
    """By the prefix of their actors' names."""
    cluster, own = settings.cluster, [extra for extra in settings.reward.extra if extra.own_pool]
    resource = {cluster.sampler_resource: 1.0} if cluster.sampler_resource is not None else {}
    return {
        "sampler": Role("sampler", cluster.fewest_samplers, cluster.sampler_cpus, cluster.sampler_gpus, resource),
        "reward": Role("reward actor", cluster.rewards, cluster.reward_cpus),
        **{prefix_of(extra): Role(extra.column, extra.pool_size, cluster.reward_cpus, extra.gpus) for extra in own},
        "records": Role("records actor", 1, 0.0),
        "learner": Role("learner", 1, cluster.learner_cpus, cluster.learner_gpus),
    }


def prefix_of(extra: ExtraReward) -> str:
    """Of actors that one extra reward has for itself."""
    return f"reward-{extra.short_name}"
