"""Prompts that read something else than what the retriever finds: what reading is worth shows in the difference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rollout.retrieval.corpus import Corpus
from rollout.retrieval.retriever import Retriever
from rollout.seeding import rng_of
from rollout.types import Passage, Prompt

# none: no passage; gold: those that the data names; random: any of the corpus; lexical: those that BM25 finds
Reading = Literal["none", "gold", "random", "lexical"]


def known_gold(prompt: Prompt) -> tuple[str, ...]:
    """The gold ids of a prompt that some passage has."""
    return tuple(id for id in prompt.gold if id not in prompt.absent_gold)


def comparable(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that are searched for; of those with known gold alone, where there are any."""
    searched = [prompt for prompt in prompts if prompt.passages is None]
    return [prompt for prompt in searched if known_gold(prompt)] or searched


@dataclass(frozen=True, slots=True)
class Readings:
    """lexical: searches the corpus by BM25, as deep as recall is measured. n_context: passages that a policy reads."""

    corpus: Corpus
    lexical: Retriever
    n_context: int
    seed: int

    def of(self, prompts: Sequence[Prompt], reading: Reading) -> list[Prompt]:
        """The prompts, each with the passages of a reading as its own.

        random draws `n_context` different passages from a generator of the prompt's own.
        """
        match reading:
            case "none":
                found: list[tuple[Passage, ...]] = [()] * len(prompts)
            case "gold":
                found = self._gold(prompts)
            case "random":
                found = [self._random(prompt) for prompt in prompts]
            case "lexical":
                found = [retrieval.passages for retrieval in self.lexical.retrieve(prompts)]
        return [replace(prompt, passages=passages) for prompt, passages in zip(prompts, found, strict=True)]

    def _gold(self, prompts: Sequence[Prompt]) -> list[tuple[Passage, ...]]:
        positions = self.corpus.positions({id for prompt in prompts for id in known_gold(prompt)})
        return [tuple(self.corpus[positions[id]] for id in known_gold(prompt)) for prompt in prompts]

    def _random(self, prompt: Prompt) -> tuple[Passage, ...]:
        size = len(self.corpus)
        drawn = rng_of(prompt, self.seed, "reading").choice(size, min(self.n_context, size), replace=False)
        return tuple(self.corpus[position] for position in drawn.tolist())
