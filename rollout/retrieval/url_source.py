"""Passages from a server that speaks Search-R1's `/retrieve`."""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from rollout.data.convert.passages import Contents
from rollout.data.convert.record import Words
from rollout.data.rows import Line
from rollout.errors import RetrievalError
from rollout.retrieval.query import build_query
from rollout.retrieval.source import RANKING_DEPTH
from rollout.retrieval.url_client import SHOWN, UrlClient
from rollout.retrieval.url_settings import UrlSettings
from rollout.types import Passage, Retrieval

Found = list[tuple[Passage, float]]  # best first


class Document(Line):
    """A passage as servers write it: `text` with a `title`, or both in `contents`, as `convert` reads it."""

    id: Words = ""
    title: Words = ""
    text: Words = ""
    contents: Words = ""

    @model_validator(mode="after")
    def _says_something(self) -> "Document":
        if not self.text.strip() and not self.contents.strip():
            raise ValueError("has neither contents nor text")
        return self

    def passage(self) -> Passage:
        """Called by what it says where it has no id."""
        title, text = self.title, self.text
        if not text.strip():
            [row] = Contents(id=self.id, title=title, contents=self.contents).rows()
            title, text = row["title"], row["text"]
        id = self.id or hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:20]
        return Passage(id=id, title=title, text=text)


class Hit(Line, allow_inf_nan=False):
    document: Document
    score: float = 0.0

    @model_validator(mode="before")
    @classmethod
    def _without_score(cls, hit: Any) -> Any:
        """Servers that give no scores write the document alone."""
        return {"document": hit} if isinstance(hit, dict) and "document" not in hit else hit


class Answer(BaseModel):
    """For each query the documents found, best first."""

    result: list[list[Hit]]


class UrlSource:
    """A PassageSource. A query that was answered lately is not asked again."""

    def __init__(self, settings: UrlSettings, query: str, sleep: Callable[[float], None] = time.sleep):
        """query: the part of a question that is asked, as `build_query` knows them."""
        assert settings.url is not None
        self._settings, self._query = settings, query
        self._client = UrlClient(settings, settings.url, sleep)
        self._cache: OrderedDict[tuple[str, int], Found] = OrderedDict()

    def check(self) -> None:
        """Raise RetrievalError for a server that does not answer a query now, at the first attempt."""
        self._ask(["who is there ?"], 1, attempts=1)

    def absent(self, ids: Collection[str]) -> set[str]:
        """Nobody but the server knows what it holds: of a gold passage that it never returns, it is taken to have missed it."""
        return set()

    def find(self, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        """Raises RetrievalError for a server that cannot be reached, is too slow, or answers nonsense."""
        depth = max(n_context, RANKING_DEPTH)
        queries = [build_query(question, self._query) for question in questions]
        found = {query: self._cache[query, depth] for query in queries if (query, depth) in self._cache}
        unknown = [query for query in dict.fromkeys(queries) if query not in found]
        for first in range(0, len(unknown), self._settings.url_batch):
            asked = unknown[first : first + self._settings.url_batch]
            found |= zip(asked, self._ask(asked, depth, self._settings.url_attempts), strict=True)
        self._remember(found, depth)
        return [_retrieval(found[query], n_context) for query in queries]

    def _ask(self, queries: Sequence[str], depth: int, attempts: int) -> list[Found]:
        asked = {"queries": list(queries), "topk": depth, "return_scores": True}
        said = self._client.post(json.dumps(asked).encode(), attempts)
        try:
            result = Answer.model_validate_json(said).result
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"])) or "its answer"
            raise self._nonsense(f"{place}: {problem['msg'].removeprefix('Value error, ')}") from error
        if len(result) != len(queries):
            raise self._nonsense(f"{len(result)} results to {len(queries)} queries")
        return [[(hit.document.passage(), hit.score) for hit in hits[:depth]] for hits in result]

    def _remember(self, found: dict[str, Found], depth: int) -> None:
        for query, passages in found.items():
            self._cache[query, depth] = passages
            self._cache.move_to_end((query, depth))
        while len(self._cache) > self._settings.url_cache:
            self._cache.popitem(last=False)

    def _nonsense(self, what: str) -> RetrievalError:
        remedy = "let retriever.url name a server that speaks Search-R1's /retrieve"
        return RetrievalError(f"{self._client.url}: answers something else ({what[:SHOWN]}); {remedy}")


def _retrieval(found: Found, n_context: int) -> Retrieval:
    return Retrieval(
        passages=tuple(passage for passage, _ in found[:n_context]),
        scores=tuple(score for _, score in found[:n_context]),
        ranking=tuple(passage.id for passage, _ in found[:RANKING_DEPTH]),
    )
