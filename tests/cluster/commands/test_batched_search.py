import asyncio
from collections.abc import Sequence

import pytest

from cluster.commands.batched_search import MOST_QUERIES, BatchedSearch
from rollout.types import Retrieval
from tests.cluster.commands.echo import Echo


class Failing(Echo):
    def find(self, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        found = super().find(questions, n_context)
        if "bad" in questions:
            raise ValueError("bad")
        return found


def ids(found: list[Retrieval]) -> list[list[str]]:
    return [[passage.id for passage in each.passages] for each in found]


async def held_up(search: BatchedSearch, source: Echo) -> "asyncio.Task[list[Retrieval]]":
    """A search that is under way until the source may end."""
    first = asyncio.create_task(search.find(["first"], 1))
    await asyncio.to_thread(source.begun.wait)
    return first


async def test_what_waits_is_searched_together_if_it_wants_as_many_passages() -> None:
    source = Echo(waits=True)
    search = BatchedSearch(source)
    first = await held_up(search, source)
    others = [asyncio.create_task(search.find(*asked)) for asked in ((["1", "2"], 1), (["3"], 2), ([], 1), (["4"], 1))]
    await asyncio.sleep(0)  # all of them ask
    source.may_end.set()
    found = [ids(each) for each in await asyncio.gather(first, *others)]
    assert found == [[["first"]], [["1"], ["2"]], [["3", "3"]], [], [["4"]]]
    assert source.searched == [["first"], ["1", "2", "4"], ["3"]]


async def test_a_request_of_many_gives_way_to_others() -> None:
    source = Echo(waits=True)
    search = BatchedSearch(source)
    first = await held_up(search, source)
    many = [str(number) for number in range(2 * MOST_QUERIES + 3)]
    both = [asyncio.create_task(search.find(queries, 1)) for queries in (many, ["small"])]
    await asyncio.sleep(0)
    source.may_end.set()
    large, _, _ = await asyncio.gather(both[0], both[1], first)
    assert ids(large) == [[query] for query in many]
    assert [len(batch) for batch in source.searched] == [1, MOST_QUERIES, 1, MOST_QUERIES, 3]
    assert source.searched[2] == ["small"]


async def test_what_is_given_up_while_it_waits_is_not_searched() -> None:
    source = Echo(waits=True)
    search = BatchedSearch(source)
    first = await held_up(search, source)
    given_up, kept = (asyncio.create_task(search.find([query], 1)) for query in ("given up", "kept"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    source.may_end.set()
    await asyncio.gather(first, kept)
    assert source.searched == [["first"], ["kept"]]


async def test_a_failure_is_that_of_its_batch_and_searching_goes_on() -> None:
    source = Failing()
    search = BatchedSearch(source)
    with pytest.raises(ValueError, match="bad"):
        await search.find(["bad"], 1)
    assert ids(await search.find(["good"], 1)) == [["good"]]
