"""Which calls a batch waits for, so that no group becomes too stale to be trained on."""

from collections import Counter
from collections.abc import Iterable, Mapping

from cluster.actors.ports import GroupRef
from cluster.training.rollout_client import InflightCall, RolloutClient


def expiring_calls(
    inflight: Iterable[InflightCall], ready: Iterable[GroupRef], client: RolloutClient, size: int, max_staleness: int
) -> list[InflightCall]:
    """Calls of which one must end before the next batch of `size`; presumed hangs are excluded."""
    longest_s = client.retry.hang_factor * client.slowest_s
    running = {
        call: client.staleness(call.snapshot.version)
        for call in inflight
        if call.snapshot is not None and client.age_s(call) < longest_s
    }
    made = Counter(client.staleness(group.version) for group in ready)
    to_come: Counter[int] = Counter()
    for call, staleness in running.items():
        to_come[staleness] += len(call.prompts)
    awaited = staleness_to_wait_for(made, to_come, size, max_staleness)
    return [call for call, staleness in running.items() if awaited is not None and staleness >= awaited]


def staleness_to_wait_for(made: Mapping[int, int], to_come: Mapping[int, int], size: int, max_staleness: int) -> int | None:
    """The lowest staleness of the groups to wait for so that none exceeds the bound, or None.

    Of groups of this staleness or more the next batch of `size` must hold more than are made, or some become too stale: those
    of staleness L fit into it and the max_staleness - L after it.

    made, to_come: groups that are finished and that are still sampled, by their staleness.
    """
    old_made = old = 0
    for later, staleness in enumerate(range(max_staleness, -1, -1)):
        old_made += made.get(staleness, 0)
        old += made.get(staleness, 0) + to_come.get(staleness, 0)
        if old_made < min(size, old - later * size):
            return staleness
    return None
