"""What the loss of a learner is, and what is not, with actors that are plain objects."""

import asyncio
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError, RayTaskError

import cluster.actors.learner_client
import cluster.actors.replica
from cluster.actors.learner_client import LearnerClient, LearnerLost
from cluster.actors.replica import InputsLost
from rollout.errors import ClusterError, LapdogError, PolicyError
from rollout.types import Version


def of_the_task(error: Exception) -> Exception:
    """As Ray hands on what an actor's method raised."""
    return RayTaskError("update", "its traceback", error).as_instanceof_cause()


class FakeLearner:
    """Raises `met` in its calls; hangs where that is None."""

    def __init__(self, met: Exception | None = None, starts: bool = True):
        self.met, self.starts, self.killed = met, starts, False
        self.ping, self.ready, self.update, self.weights = map(
            self._remote, (self._ping, self._ready, self._update, self._update)
        )

    def _remote(self, method: Callable[[], Any]) -> Any:
        return SimpleNamespace(remote=method)

    async def _ping(self) -> tuple[str, int]:
        return "node", 1

    async def _ready(self) -> None:
        if not self.starts:
            raise ActorDiedError()

    async def _update(self) -> None:
        if self.met is None:
            await asyncio.Event().wait()
        raise self.met or AssertionError


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nodes on which a process was ended because it gave no answer."""
    nodes: list[str] = []
    for module in (cluster.actors.learner_client, cluster.actors.replica):
        monkeypatch.setattr(module, "kill_process", lambda replica: nodes.append(replica.node))
        monkeypatch.setattr(module.ray, "kill", lambda actor: setattr(actor, "killed", True))
    return nodes


async def started(*learners: FakeLearner, say: Callable[[str], None] = lambda text: None) -> LearnerClient:
    left = iter(learners)

    def spawn(name: str, avoided: Collection[str]) -> FakeLearner:
        return next(left)

    client = LearnerClient(spawn, 60.0, 0.05, say)
    await client.start()
    return client


@pytest.mark.parametrize(
    ("met", "raised", "message"),
    [
        (ActorDiedError(), LearnerLost, "lost in update"),
        (OutOfMemoryError("the node ran out of memory"), LearnerLost, "lost in update .the node ran out of memory"),
        (of_the_task(OSError("bad device")), LearnerLost, "update failed .OSError: .*bad device"),
        (of_the_task(ObjectLostError("ab" * 28, None, "")), InputsLost, "what update was given is lost"),
        (ObjectLostError("ab" * 28, None, ""), InputsLost, "what update was given is lost"),
        (of_the_task(PolicyError("a/b: no such folder; correct it")), PolicyError, "its traceback"),
        (None, LearnerLost, "update gave no answer in 0.05 s"),
    ],
)
def test_what_a_call_meets_is_told_apart(
    met: Exception | None, raised: type[LapdogError], message: str, frozen: list[str]
) -> None:
    async def run() -> None:
        client = await started(FakeLearner(met))
        with pytest.raises(raised, match=message):
            await client.ask("update")

    asyncio.run(run())
    assert frozen == (["node"] if met is None else [])


def test_a_learner_that_freezes_after_its_update_is_lost_at_the_next_check(frozen: list[str]) -> None:
    """A learner that freezes after its update still takes the call, and answers neither it nor the next."""

    async def run() -> None:
        learner = FakeLearner()
        client = await started(learner)
        learner.ping = learner.update
        client.publish(Version(0, 1)).references[0].close()
        with pytest.raises(LearnerLost, match="ping gave no answer"):
            await client.check()

    asyncio.run(run())
    assert frozen == ["node"]


def test_a_learner_is_started_three_times(frozen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    pauses: list[float] = []

    async def without_waiting(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(cluster.actors.replica.asyncio, "sleep", without_waiting)
    learners = [FakeLearner(starts=False), FakeLearner(starts=False), FakeLearner()]
    client = asyncio.run(started(*learners, say=said.append))
    assert client.restarts == 2 and pauses == [0.5, 1] and [learner.killed for learner in learners] == [True, True, False]
    assert said[0].startswith("learner: cannot be started (The actor died")
    with pytest.raises(ClusterError, match="learner: cannot be started"):
        asyncio.run(started(*(FakeLearner(starts=False) for _ in range(3))))
