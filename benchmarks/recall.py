"""How often a passage that belongs to an example is found: by words, by vectors, by both.

    python -m benchmarks.recall --data DIR --encoder DIR [--queries persona+last_turn all] [--part 1000] [--cache DIR]

DIR holds train.jsonl, valid.jsonl and passages.jsonl, with `gold`. A hybrid's lexical_weight is the one of WEIGHTS with the
largest sum of recall@1, @5 and @20 on a part of train, drawn with a seed; everything that is printed is of valid. Vectors are
kept in the cache, as those of a run. The last line is JSON.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.retrieval_vectors import Given
from rollout.config import DataSettings, QueryPart
from rollout.data.dataset import read_prompts
from rollout.retrieval.corpus import Corpus, with_absent_gold
from rollout.retrieval.dense import Dense, kept_slices
from rollout.retrieval.encoder import load_encoder
from rollout.retrieval.index import SearchIndex
from rollout.retrieval.open import open_index
from rollout.retrieval.query import build_query
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource
from rollout.types import Prompt

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
DEPTHS = (1, 5, 20)
AT_ONCE = 64


@dataclass(frozen=True)
class Way:
    """Of finding passages; a part of the question that is None is not compared."""

    words: QueryPart | None
    vectors: QueryPart | None
    weight: float | None = None

    @property
    def cells(self) -> list[str]:
        return [str(each or "") for each in (self.words, self.vectors, self.weight)]


@dataclass(frozen=True)
class World:
    corpus: Corpus
    lexical: SearchIndex
    dense: Dense
    settings: RetrieverSettings

    @classmethod
    def open(cls, corpus: Corpus, data: DataSettings, encoder: Path, queries: Sequence[str]) -> "World":
        """queries: all that vectors will be asked; each is embedded once."""
        settings = RetrieverSettings(path=str(encoder))
        loaded = load_encoder(settings, "cpu")
        dense = Dense(Given(loaded.embed_queries(queries), queries), len(corpus))  # type: ignore[arg-type]
        dense.load(kept_slices(corpus, loaded, settings.slice_passages, settings.dtype), "vectors")
        return cls(corpus, open_index(corpus, data), dense, settings)

    def recall(self, way: Way, prompts: Sequence[Prompt]) -> list[float]:
        """Percent of the prompts of whose gold passages one is among the first n, for each n of DEPTHS."""
        weight = {} if way.weight is None else {"lexical_weight": way.weight}
        settings = self.settings.with_values(query=way.vectors, **weight)
        lexical, dense = (None if way.words is None else self.lexical), (None if way.vectors is None else self.dense)
        source = LocalSource(self.corpus, way.words or "all", settings, lexical, dense)
        found: list[tuple[str, ...]] = []
        for start in range(0, len(prompts), AT_ONCE):
            questions = [prompt.question for prompt in prompts[start : start + AT_ONCE]]
            found += [retrieval.ranking for retrieval in source.find(questions, 1)]
        hits = [[bool(set(prompt.gold) & set(ids[:n])) for n in DEPTHS] for prompt, ids in zip(prompts, found, strict=True)]
        return [100 * sum(own) / len(prompts) for own in zip(*hits, strict=True)]

    def ways(self, queries: Sequence[QueryPart], part: Sequence[Prompt]) -> Iterator[Way]:
        yield from (Way(words, None) for words in queries)
        yield from (Way(None, vectors) for vectors in queries)
        for vectors in queries:
            for words in queries:
                tried = [Way(words, vectors, weight) for weight in WEIGHTS]
                yield max(tried, key=lambda way: sum(self.recall(way, part)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--queries", nargs="+", choices=get_args(QueryPart), default=["persona+last_turn", "all"])
    parser.add_argument("--part", type=int, default=1000, help="training examples that choose the weight")
    parser.add_argument("--cache", type=Path, help="default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        passages, cache = options.data / "passages.jsonl", options.cache or Path(passing)
        corpus = Corpus.open(passages, cache)
        train, valid = (known(options.data / f"{name}.jsonl", corpus) for name in ("train", "valid"))
        part = random.Random(0).sample(train, min(options.part, len(train)))
        asked = {build_query(prompt.question, query) for prompt in (*part, *valid) for query in options.queries}
        data = DataSettings(passages=passages, cache=cache, language="en")
        world = World.open(corpus, data, options.encoder, sorted(asked))
        print("| BM25 asks | vectors ask | lexical_weight | " + " | ".join(f"recall@{n}" for n in DEPTHS) + " |")
        print("|---" * (3 + len(DEPTHS)) + "|")
        rows = []
        for way in world.ways(options.queries, part):
            recall = world.recall(way, valid)
            rows.append({"words": way.words, "vectors": way.vectors, "lexical_weight": way.weight, "recall": recall})
            print("| " + " | ".join([*way.cells, *(f"{each:.1f}" for each in recall)]) + " |", flush=True)
    print(json.dumps({"bench": "recall", "examples": len(valid), "chosen_on": len(part), "rows": rows}))


def known(file: Path, corpus: Corpus) -> list[Prompt]:
    """The examples of which a gold passage exists."""
    return [prompt for prompt in with_absent_gold(read_prompts(file), corpus) if set(prompt.gold) - set(prompt.absent_gold)]


if __name__ == "__main__":
    main()
