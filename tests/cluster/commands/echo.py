"""A PassageSource that a test holds up."""

import threading
from collections.abc import Sequence

from rollout.types import Passage, Retrieval


class Echo:
    """Finds the queries themselves, each `topk` times; the first search waits until it may end."""

    def __init__(self, waits: bool = False):
        self.searched: list[list[str]] = []
        self.begun, self.may_end = threading.Event(), threading.Event()
        if not waits:
            self.may_end.set()

    def find(self, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        self.searched.append(list(questions))
        self.begun.set()
        self.may_end.wait()
        passage = [Passage(id=question, title="", text=question) for question in questions]
        return [Retrieval(passages=(each,) * n_context, scores=(1.0,) * n_context) for each in passage]
