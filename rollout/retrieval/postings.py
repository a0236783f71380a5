"""Build BM25's shards with the memory of one: postings with term frequencies first, scores when all shards have told theirs."""

import contextlib
import heapq
import itertools
import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import bm25s
import numpy as np
from bm25s import scoring
from tqdm import tqdm

from rollout.retrieval.build import mapped_array, write_array
from rollout.retrieval.words import BLOCK, Words

TOKENS = 1 << 24  # that make a shard of fewer passages, where they are long
POSTINGS = 1 << 20  # that are scored at once


def build_shards(texts: Iterable[Iterable[str]], count: int, most_passages: int, target: Path) -> bool:
    """Write a folder for each shard, named by its number, and `bounds.npy`: the position where each begins, and the end.

    texts: `count` passages as tokens. Returns whether there was any. Scores are to the bit those of `bm25s.BM25()` over the
    whole corpus: df and mean length are those of all shards.
    """
    bounds, total, shard = [0], 0, _Tokens()
    for tokens in tqdm(texts, "index of passages", count, unit="", disable=None, leave=False, delay=1):
        shard.add(tokens)
        if len(shard.lengths) == most_passages or len(shard.ids) >= TOKENS or bounds[-1] + len(shard.lengths) == count:
            shard.write(_folder(target, len(bounds) - 1))
            bounds.append(bounds[-1] + len(shard.lengths))
            total += len(shard.ids)
            shard = _Tokens()
    write_array(target / "bounds.npy", [np.array(bounds)], np.int64, len(bounds))
    folders = [_folder(target, number) for number in range(len(bounds) - 1)]
    _write_frequencies(folders)
    for folder in tqdm(folders, "scores of passages", unit="shard", disable=None, leave=False, delay=1):
        _write_scores(folder, count, np.float64(total) / count)
    return total > 0


def shard_folders(index: Path) -> Iterator[tuple[Path, int, int]]:
    """(folder, first position, the one after the last) of each shard."""
    for number, (start, stop) in enumerate(itertools.pairwise(np.load(index / "bounds.npy").tolist())):
        yield _folder(index, number), start, stop


def _folder(index: Path, number: int) -> Path:
    return index / f"{number:05}"


def _numbering() -> defaultdict[str, int]:
    """Words by the order in which they are met."""
    return defaultdict(itertools.count().__next__)


@dataclass(slots=True)
class _Tokens:
    """Those of a shard's passages, one after the other, as numbers of its vocabulary."""

    vocabulary: defaultdict[str, int] = field(default_factory=_numbering)
    ids: "array[int]" = field(default_factory=lambda: array("i"))
    lengths: "array[int]" = field(default_factory=lambda: array("i"))

    def add(self, tokens: Iterable[str]) -> None:
        before = len(self.ids)
        self.ids.extend(map(self.vocabulary.__getitem__, tokens))
        self.lengths.append(len(self.ids) - before)

    def write(self, folder: Path) -> None:
        """All but the scores: `counts` and `lengths` stand for them."""
        folder.mkdir()
        words = sorted(self.vocabulary)
        Words.write(folder, words)
        ranks = np.empty(len(words), np.int64)
        ranks[np.fromiter(map(self.vocabulary.__getitem__, words), np.int64, len(words))] = np.arange(len(words))
        keys = ranks[np.asarray(self.ids)] << 32  # (word, passage): sorted, equal ones are a posting
        keys |= np.repeat(np.arange(len(self.lengths)), np.asarray(self.lengths))
        keys.sort()
        firsts = np.flatnonzero(np.concatenate([[True] * (len(keys) > 0), keys[1:] != keys[:-1]]))
        counts = np.diff(firsts, append=len(keys))
        keys = keys[firsts]
        write_array(folder / "passages.npy", [keys & 0xFFFFFFFF], np.int32, len(keys))
        write_array(folder / "counts.npy", [counts], np.int32, len(keys))
        write_array(folder / "ends.npy", [np.searchsorted(keys >> 32, np.arange(len(words)), "right")], np.int64, len(words))
        write_array(folder / "lengths.npy", [np.asarray(self.lengths)], np.int32, len(self.lengths))


def _write_frequencies(folders: list[Path]) -> None:
    """`frequencies`: in how many passages of all shards each of a shard's words stands; int64, without a head."""
    number = struct.Struct("=q").pack
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / "frequencies").open("wb")) for folder in folders]
        merged = heapq.merge(*(_own_frequencies(folder, shard) for shard, folder in enumerate(folders)))
        for _, same in itertools.groupby(merged, itemgetter(0)):
            entries = list(same)
            total = number(sum(frequency for _, _, frequency in entries))
            for _, shard, _ in entries:
                files[shard].write(total)


def _own_frequencies(folder: Path, shard: int) -> Iterator[tuple[bytes, int, int]]:
    """(word, shard, its passages in this shard), by word."""
    ends = mapped_array(folder / "ends.npy")
    starts = range(0, len(ends), BLOCK)
    frequencies = (np.diff(ends[start : start + BLOCK], prepend=ends[start - 1] if start else 0).tolist() for start in starts)
    return zip(Words(folder), itertools.repeat(shard), itertools.chain.from_iterable(frequencies), strict=False)


def _write_scores(folder: Path, count: int, mean_length: np.float64) -> None:
    """`scores` in place of what they are made of. As bm25s has them: in float64, but inverse document frequencies are rounded
    to float32 before, and the product after it."""
    passages, counts = mapped_array(folder / "passages.npy"), mapped_array(folder / "counts.npy")
    ends, lengths = mapped_array(folder / "ends.npy"), mapped_array(folder / "lengths.npy")
    as_set = bm25s.BM25()
    score: Callable[..., np.ndarray] = scoring._select_tfc_scorer(as_set.method)
    inverse: Callable[..., float] = scoring._select_idf_scorer(as_set.idf_method)
    frequencies, places = np.unique(np.fromfile(folder / "frequencies", np.int64), return_inverse=True)
    inverses = np.array([inverse(frequency, N=count) for frequency in frequencies.tolist()], np.float32)
    weights = np.repeat(inverses[places], np.diff(ends, prepend=0))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(passages), POSTINGS):
            part = slice(start, start + POSTINGS)
            yield weights[part] * score(
                counts[part].astype(np.float32),
                lengths[passages[part]],
                mean_length,
                k1=as_set.k1,
                b=as_set.b,
                delta=as_set.delta,
            )

    write_array(folder / "scores.npy", blocks(), np.float32, len(passages))
    for name in ("counts.npy", "lengths.npy", "frequencies"):
        (folder / name).unlink()
