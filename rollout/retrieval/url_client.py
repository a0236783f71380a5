"""Requests to a server of passages: a deadline, and further attempts while it cannot be reached or is busy."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, NewConnectionError, ReadTimeoutError, TimeoutError

from rollout.errors import RetrievalError, first_line
from rollout.retrieval.url_settings import TOKEN_VARIABLE, UrlSettings, own_token

BUSY = (429, 500, 502, 503, 504)  # a server, or a proxy before it, that may answer later
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
PART_BYTES, MOST_BYTES = 1 << 16, 256 << 20  # of an answer: what is read at once, and in all
SHOWN = 160  # characters of what a server says
TOKEN_REMEDY = f"put its token into {TOKEN_VARIABLE}"
REMEDIES = {
    401: TOKEN_REMEDY,
    403: TOKEN_REMEDY,
    404: "give its whole address, as http://HOST:8000/retrieve",
    413: "lower retriever.url_batch",
}
jitter = random.Random()  # of its own: Python's common generator may be a user's


class UrlClient:
    """One request is under way at a time, so that a server that is slow is asked less."""

    def __init__(self, settings: UrlSettings, url: str, sleep: Callable[[float], None] = time.sleep):
        self.url, self._settings, self._sleep = url, settings, sleep
        token = own_token()
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._pool = PoolManager(num_pools=1)

    def post(self, body: bytes, attempts: int) -> bytes:
        """The body of the answer. Raises RetrievalError for a server that refuses, or still gives none at the last attempt."""
        for attempt in range(attempts):
            response = None
            try:
                response, said = self._answer(body)
            except HTTPError as error:
                failure = self._silent(error)
            else:
                if response.status == 200:
                    return said
                failure = self._refused(response.status, said)
                if response.status not in BUSY:
                    break
            if attempt + 1 < attempts:
                self._sleep(pause_s(attempt, response))
        raise failure

    def _answer(self, body: bytes) -> tuple[BaseHTTPResponse, bytes]:
        """The answer and its body, which must be complete before the deadline, however it trickles."""
        deadline_s = self._settings.url_deadline_s
        ends_at = time.monotonic() + deadline_s
        response = self._pool.request(
            "POST",
            self.url,
            body,
            headers=self._headers,
            preload_content=False,
            timeout=Timeout(deadline_s),
            retries=False,
            redirect=False,  # which would hand the token to another server
        )
        try:
            said = b"".join(self._parts(response, ends_at))
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response, said

    def _parts(self, response: BaseHTTPResponse, ends_at: float) -> Iterator[bytes]:
        size = 0
        while part := response.read1(PART_BYTES):
            size += len(part)
            if size > MOST_BYTES:
                raise RetrievalError(f"{self.url}: answers with more than {MOST_BYTES >> 20} MB; lower retriever.url_batch")
            if time.monotonic() > ends_at:
                raise ReadTimeoutError(self._pool.connection_from_url(self.url), self.url, "the deadline has passed")
            yield part

    def _refused(self, status: int, said: bytes) -> RetrievalError:
        shown = " ".join(said.decode(errors="replace").split())[:SHOWN]
        remedy = REMEDIES.get(status, "look into its log")
        return RetrievalError(f"{self.url}: answers {status}{f' ({shown})' if shown else ''}; {remedy}")

    def _silent(self, error: HTTPError) -> RetrievalError:
        is_slow = isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError)  # which counts as one, too
        within = f"nothing within {self._settings.url_deadline_s:g} s"
        cause = within if is_slow else first_line(error).rpartition(": ")[2]
        return RetrievalError(f"{self.url}: gives no answer ({cause}); start the server, or correct retriever.url")


def pause_s(attempt: int, response: BaseHTTPResponse | None) -> float:
    """Seconds to wait after that attempt, the first being 0: what the server asks for, else up to 1, 2, 4, ... 30, drawn so
    that samplers which were refused together come back one by one."""
    with contextlib.suppress(InvalidHeader):
        asked = None if response is None else Retry(retry_after_max=int(LONGEST_PAUSE_S)).get_retry_after(response)
        if asked is not None:
            return asked
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt) * jitter.uniform(0.5, 1)
