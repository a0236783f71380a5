"""Search-R1's `/retrieve` by aiohttp: a bounded number of requests, a deadline for each, every refusal a line of JSON."""

import asyncio
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, Field, ValidationError

from cluster.commands.batched_search import BatchedSearch
from cluster.output import print_err
from rollout.config import NonNegative, Positive, Section
from rollout.errors import first_line
from rollout.retrieval.source import PassageSource
from rollout.retrieval.url_settings import TOKEN_VARIABLE
from rollout.types import Passage, Retrieval

MOST_BYTES, MOST_QUERIES, MOST_PASSAGES = 8 << 20, 10_000, 100_000  # of a request; of an answer
RETRY_AFTER_S = 1
PASSED_ON = ("Allow", "Retry-After", "WWW-Authenticate")  # headers of a refusal


class ServerOptions(Section):
    host: str = Field("127.0.0.1", description="address to listen at; any that other machines reach needs a token")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port to listen at; 0: a free one")
    token: Annotated[str | None, Field(min_length=1)] = Field(
        None, description=f"what clients must send as Authorization: Bearer; better put into {TOKEN_VARIABLE}, which ps hides"
    )
    topk: Positive = Field(3, description="passages for a query of a request that does not say how many")
    queue: Positive = Field(256, description="requests that may wait or be searched; further ones are told to come again")
    deadline_s: Annotated[float, Field(gt=0)] = Field(30.0, description="seconds that a request may take")


class Query(BaseModel):
    """A request by the letter of the format; keys that it does not know are left alone, as there."""

    queries: Annotated[list[str], Field(max_length=MOST_QUERIES)]
    topk: NonNegative | None = None
    return_scores: bool = False


class RetrieveServer:
    """health: what /health says, beside that all is well."""

    def __init__(self, source: PassageSource, options: ServerOptions, health: Mapping[str, object]):
        self.health = {"status": "ok", **health}
        self._search, self._options, self._under_way = BatchedSearch(source), options, 0

    def application(self) -> web.Application:
        application = web.Application(middlewares=[refusals_as_json], client_max_size=MOST_BYTES)
        application.router.add_post("/retrieve", self._retrieve)
        application.router.add_get("/health", self._health)
        return application

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(self.health)

    async def _retrieve(self, request: web.Request) -> web.Response:
        self._check_token(request)
        if self._under_way >= self._options.queue:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise web.HTTPServiceUnavailable(text=f"{self._under_way} requests are under way; come again", headers=headers)
        self._under_way += 1
        try:
            async with asyncio.timeout(self._options.deadline_s):
                query = parsed(await request.read())
                found = await self._search.find(query.queries, self._topk(query))
        except TimeoutError as error:
            raise web.HTTPGatewayTimeout(text=f"took longer than {self._options.deadline_s:g} s") from error
        finally:
            self._under_way -= 1
        return web.json_response({"result": [documents(retrieval, query.return_scores) for retrieval in found]})

    def _check_token(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        token = self._options.token
        is_theirs = scheme.lower() == "bearer" and hmac.compare_digest(given.encode(errors="replace"), (token or "").encode())
        if token is not None and not is_theirs:
            raise web.HTTPUnauthorized(text="send the token as Authorization: Bearer", headers={"WWW-Authenticate": "Bearer"})

    def _topk(self, query: Query) -> int:
        topk = query.topk or self._options.topk
        if len(query.queries) * topk > MOST_PASSAGES:
            asked = f"{len(query.queries)} queries with topk {topk}"
            raise web.HTTPUnprocessableEntity(text=f"{asked} want more than {MOST_PASSAGES} passages; ask for fewer at once")
        return topk


def parsed(body: bytes) -> Query:
    try:
        return Query.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        if problem["type"] == "json_invalid":
            raise web.HTTPBadRequest(text=problem["msg"]) from error
        raise web.HTTPUnprocessableEntity(text=f"{place or 'the body'}: {problem['msg']}") from error


def documents(retrieval: Retrieval, with_scores: bool) -> Sequence[Mapping[str, Any]]:
    """What was found for a query, best first."""
    found = [_document(passage) for passage in retrieval.passages]
    if not with_scores:
        return found
    return [{"document": document, "score": score} for document, score in zip(found, retrieval.scores, strict=True)]


def _document(passage: Passage) -> dict[str, str]:
    """contents: by which clients tell title and text, the first line being the title."""
    title = " ".join(passage.title.split())
    return {"id": passage.id, "contents": f"{title}\n{passage.text}", "title": passage.title, "text": passage.text}


@web.middleware
async def refusals_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        headers = {name: refusal.headers[name] for name in PASSED_ON if name in refusal.headers}
        return web.json_response({"detail": " ".join((refusal.text or "").split())}, status=refusal.status, headers=headers)
    except Exception as error:
        print_err(f"a request failed: {type(error).__name__}: {first_line(error)}")
        return web.json_response({"detail": "the search failed"}, status=HTTPStatus.INTERNAL_SERVER_ERROR)


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
