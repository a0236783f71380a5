"""Prompts -> the passages their policy reads."""

from collections.abc import Sequence

from rollout.retrieval.source import PassageSource
from rollout.types import Prompt, Retrieval


class Retriever:
    """Asks the source for `n_context` passages, unless the example supplies its passages itself; without a source nothing is
    found."""

    def __init__(self, n_context: int, source: PassageSource | None = None):
        self.source, self._n_context = source, n_context

    def retrieve(self, prompts: Sequence[Prompt]) -> list[Retrieval]:
        searched = [prompt.question for prompt in prompts if prompt.passages is None]
        found = iter(self._found(searched))
        return [next(found) if prompt.passages is None else self._supplied(prompt) for prompt in prompts]

    def _found(self, questions: Sequence[str]) -> list[Retrieval]:
        if self.source is None:
            return [Retrieval(passages=(), scores=())] * len(questions)
        return self.source.find(questions, self._n_context) if questions else []

    def _supplied(self, prompt: Prompt) -> Retrieval:
        passages = prompt.passages or ()
        kept = passages[: self._n_context]
        return Retrieval(passages=kept, scores=(0.0,) * len(kept), ranking=tuple(p.id for p in passages))
