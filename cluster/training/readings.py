"""What reading is worth: held-out figures with other passages in place of those that are found."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from cluster.settings.tree import Settings
from cluster.store.rows import Row
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.open import open_retriever
from rollout.retrieval.reading import Reading, Readings, comparable, known_gold
from rollout.retrieval.source import RANKING_DEPTH
from rollout.types import Prompt

ALL: tuple[Reading, ...] = ("none", "gold", "random", "lexical")
RETRIEVED = "retrieved"


def wanted_readings(settings: Settings, prompts: Sequence[Prompt], at_the_end: bool) -> tuple[Reading, ...]:
    """Those that the settings name, or at the end of a run all that differ from its own, if gold passages are known. None where
    nothing is read, or a server alone has passages."""
    if settings.policy.n_context == 0 or settings.retriever.url is not None or not (searched := comparable(prompts)):
        return ()
    if settings.eval_reading is not None:
        return settings.eval_reading
    if not at_the_end or not known_gold(searched[0]):
        return ()
    return ALL if settings.retriever.used_mode != "lexical" else tuple(reading for reading in ALL if reading != "lexical")


def open_readings(settings: Settings) -> Readings:
    data, n_context = settings.data, settings.policy.n_context
    assert data.passages is not None, "prompts that are searched for have passages"
    corpus = Corpus.open(data.passages, data.cache)
    return Readings(corpus, open_retriever(data, min(RANKING_DEPTH, len(corpus))), n_context, settings.seed)


async def with_readings(
    figures: Row,
    prompts: Sequence[Prompt],
    wanted: Sequence[Reading],
    readings: Readings,
    figures_of: Callable[[list[Prompt]], Awaitable[Row]],
) -> Row:
    """The figures of the prompts, with those of each reading under `readings`, of the prompts that `comparable` gives: where
    these are not all, `retrieved` are what their own passages reach. Gold is left out where none is known."""
    compared = comparable(prompts)
    found = {} if len(compared) == len(prompts) else {RETRIEVED: await figures_of(compared)}
    for reading in wanted:
        if reading != "gold" or known_gold(compared[0]):
            found[reading] = await figures_of(readings.of(compared, reading))
    closed = gap_closed(found.get(RETRIEVED, figures), found)
    return figures | {"readings": found} | ({} if closed is None else {"gap_closed": closed})


def gap_closed(own: Row, readings: Mapping[str, Row]) -> float | None:
    """(own - lexical) / (gold - lexical) of the mean rewards, in percent: what the retriever adds to BM25 over what the gold
    passages would add. None unless gold passages earn more than BM25's."""
    rewards = [figures.get("reward") for figures in (own, readings.get("lexical", {}), readings.get("gold", {}))]
    mine, lexical, gold = rewards
    if mine is None or lexical is None or gold is None or gold <= lexical:
        return None
    return 100 * (mine - lexical) / (gold - lexical)
