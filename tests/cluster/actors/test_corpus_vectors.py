import asyncio
from collections import Counter

import pytest

from cluster.actors.corpus_vectors import CorpusVectors, corpus_vectors
from cluster.actors.index_port import IndexPort
from cluster.actors.pool import Pool
from cluster.actors.ports import SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.settings.tree import Settings
from rollout.errors import PolicyError, RetrievalError
from rollout.types import Version
from tests.cluster.fakes import FakeCluster, FakeHandle, raised_by_the_task

pytestmark = pytest.mark.simulated_time


class Embedding:
    """Samplers that embed, and hold what they made until they die. dying: the numbers of slices at which one dies, once."""

    def __init__(self, *dying: int):
        self.dying, self.made, self.gone = list(dying), Counter[int](), list[int]()

    def prepare(self, handle: FakeHandle) -> None:
        def embed(number: int) -> tuple[str, str]:
            self.made[number] += 1
            if number in self.dying:
                self.dying.remove(number)
                handle.die()
            return self.of(handle), f"slice {number}"

        handle.answers |= {"embed": embed, "lost_slices": lambda vectors: self.gone}

    def of(self, handle: FakeHandle) -> str:
        return "content"

    def samplers(self, size: int = 2) -> SamplerPort:
        port = SamplerPort(Pool("sampler", FakeCluster(self.prepare).spawn, size, RetryPolicy(), print))
        port.start()
        return port


async def opened(reference: object) -> list[str]:
    of, slices = await reference  # type: ignore[misc]
    assert of == "content"
    return [await each for each in slices]


async def test_all_slices_are_made_once_and_come_in_their_order() -> None:
    samplers, events = Embedding(), list[str]()
    vectors = CorpusVectors(samplers.samplers(), 5, events.append)
    assert await opened(await vectors.embed()) == [f"slice {number}" for number in range(5)]
    assert samplers.made == {number: 1 for number in range(5)}
    assert events[0] == "embedding 5 of 5 slices of the corpus" and "5 of 5 slices of the corpus embedded in" in events[1]


async def test_a_slice_whose_sampler_dies_is_made_by_another() -> None:
    samplers = Embedding(1, 3)
    vectors = CorpusVectors(samplers.samplers(), 5, print)
    assert await opened(await vectors.embed()) == [f"slice {number}" for number in range(5)]
    assert samplers.made[1] == samplers.made[3] == 2 and samplers.made.total() == 7


async def test_only_slices_that_are_gone_are_made_again_and_once_however_many_calls_miss_them() -> None:
    samplers = Embedding()
    store = SnapshotStore(None, Version(0, 0), CorpusVectors(samplers.samplers(), 5, print))
    await store.embed_corpus()
    lost, samplers.gone = store.current, [2, 4]
    await asyncio.gather(*(store.restore(lost) for _ in range(4)))
    assert samplers.made == {0: 1, 1: 1, 2: 2, 3: 1, 4: 2}
    restored = store.current
    samplers.gone = []
    await store.restore(restored)
    assert store.current.vectors is restored.vectors  # nothing is gone: samplers need not take them again
    assert store.current.vectors is not lost.vectors and await opened(store.current.vectors) == await opened(lost.vectors)


async def test_samplers_that_find_other_content_than_others_end_the_run() -> None:
    class Mixed(Embedding):
        def of(self, handle: FakeHandle) -> str:
            return handle.node

    with pytest.raises(RetrievalError, match="samplers find other content there than others do"):
        await CorpusVectors(Mixed().samplers(), 5, print).embed()


async def test_what_the_encoder_refuses_is_raised_and_ends_the_other_calls() -> None:
    samplers = Embedding()

    def prepare(handle: FakeHandle) -> None:
        handle.answers["embed"] = lambda number: raised_by_the_task(PolicyError("retriever.path: gives no vector"))

    port = SamplerPort(Pool("sampler", FakeCluster(prepare).spawn, 2, RetryPolicy(), print))
    port.start()
    with pytest.raises(PolicyError):
        await CorpusVectors(port, 5, print).embed()
    assert samplers.made.total() == 0


async def test_a_corpus_is_embedded_by_samplers_where_it_is_searched_by_vectors_and_read() -> None:
    dense = Settings.model_validate({"retriever": {"mode": "dense", "slice_passages": 4}})
    blind = dense.with_values(policy=dense.policy.with_values(n_context=0))
    samplers = Embedding().samplers()
    here, elsewhere = (IndexPort(size, FakeCluster().spawn, RetryPolicy(), print) for size in (0, 2))
    assert [corpus_vectors(each, 9, samplers, here, print) for each in (Settings(), blind)] == [None, None]
    assert corpus_vectors(dense, 0, samplers, here, print) is None
    assert corpus_vectors(dense, 9, samplers, elsewhere, print) is None
    assert corpus_vectors(dense, 9, samplers, here, print) is not None
