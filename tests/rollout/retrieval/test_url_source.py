"""A client of Search-R1's `/retrieve`, against a server that answers by the letter, or anything else."""

import hashlib
import socket
from typing import Any

import pytest
from pydantic import ValidationError

from rollout.errors import RetrievalError, SettingsError
from rollout.retrieval.url_settings import TOKEN_VARIABLE, UrlSettings, own_token
from rollout.retrieval.url_source import UrlSource
from rollout.types import Passage
from tests.rollout.retrieval.scripted_server import Reply, Scripted, scripted


def doc(id: str, contents: str = '"Title"\nits text') -> dict[str, str]:
    return {"id": id, "contents": contents}


def hit(id: str, score: float = 1.0) -> dict[str, Any]:
    return {"document": doc(id), "score": score}


def source(script: Scripted, **settings: Any) -> UrlSource:
    return UrlSource(UrlSettings(url=script.url, **settings), "all", sleep=lambda seconds: None)


def test_queries_are_asked_and_answered_by_the_letter_of_the_format() -> None:
    with scripted(Reply({"result": [[hit("a", 2.5), hit("b", 1.5)], []]})) as script:
        first, second = source(script).find(["where ?", "who ?"], 1)
    assert script.asked == [{"queries": ["where ?", "who ?"], "topk": 20, "return_scores": True}]
    assert first.passages == (Passage(id="a", title="Title", text="its text"),)
    assert first.scores == (2.5,) and first.ranking == ("a", "b")
    assert second.passages == second.scores == second.ranking == ()


@pytest.mark.parametrize(
    ("document", "passage"),
    [
        ({"id": 7, "contents": "Title\nfirst line\nsecond"}, Passage(id="7", title="Title", text="first line\nsecond")),
        ({"id": "a", "contents": "text alone"}, Passage(id="a", title="", text="text alone")),
        ({"id": "a", "title": "T", "text": "body", "contents": None}, Passage(id="a", title="T", text="body")),
        (
            {"contents": '"T"\nbody'},
            Passage(id=hashlib.sha256(b"T\nbody").hexdigest()[:20], title="T", text="body"),
        ),
    ],
)
def test_a_document_may_be_worded_in_several_ways(document: dict[str, Any], passage: Passage) -> None:
    with scripted(Reply({"result": [[{"document": document, "score": 1}]]})) as script:
        [found] = source(script).find(["q"], 1)
    assert found.passages == (passage,)


def test_documents_without_scores_keep_their_order() -> None:
    with scripted(Reply({"result": [[doc("b"), doc("a")]]})) as script:
        [found] = source(script).find(["q"], 2)
    assert [passage.id for passage in found.passages] == ["b", "a"] and found.scores == (0.0, 0.0)


def test_more_than_was_asked_for_is_left_out() -> None:
    with scripted(Reply({"result": [[hit(str(n)) for n in range(30)]]})) as script:
        [found] = source(script).find(["q"], 25)
    assert script.asked[0]["topk"] == len(found.passages) == 25 and len(found.ranking) == 20


def test_the_chosen_part_of_a_question_is_asked() -> None:
    with scripted(Reply({"result": [[]]})) as script:
        UrlSource(UrlSettings(url=script.url), "last_turn").find(["persona: i run. context:  Q: where ?"], 1)
    assert script.asked[0]["queries"] == ["where ?"]


def test_a_call_is_cut_into_requests_of_bounded_size() -> None:
    with scripted(Reply({"result": [[hit("a")], [hit("b")]]}), Reply({"result": [[hit("c")]]})) as script:
        found = source(script, url_batch=2).find(["1", "2", "3"], 1)
    assert [asked["queries"] for asked in script.asked] == [["1", "2"], ["3"]]
    assert [each.ranking for each in found] == [("a",), ("b",), ("c",)]


def test_a_query_is_asked_once_while_it_is_remembered() -> None:
    answers = [Reply({"result": [[hit(name)] for name in names]}) for names in ("ab", "c", "b")]
    with scripted(*answers) as script:
        client = source(script, url_cache=2)
        assert [each.ranking for each in client.find(["1", "2", "1"], 1)] == [("a",), ("b",), ("a",)]
        assert client.find(["1"], 1)[0].ranking == ("a",)  # 2 is now the one that was used longest ago
        client.find(["3"], 1)
        assert client.find(["1"], 1)[0].ranking == ("a",) and client.find(["2"], 1)[0].ranking == ("b",)
    assert [asked["queries"] for asked in script.asked] == [["1", "2"], ["3"], ["2"]]


def test_another_depth_is_another_question() -> None:
    with scripted(Reply({"result": [[]]})) as script:
        client = source(script)
        client.find(["q"], 1)
        client.find(["q"], 21)
    assert [asked["topk"] for asked in script.asked] == [20, 21]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with scripted(Reply(status=status), Reply(status=status), Reply({"result": [[hit("a")]]})) as script:
        [found] = source(script).find(["q"], 1)
    assert found.ranking == ("a",) and len(script.asked) == 3


def test_pauses_are_what_the_server_asks_for_or_double() -> None:
    busy = [Reply(status=503, headers=headers) for headers in ({"Retry-After": "7"}, {}, {"Retry-After": "soon"})]
    busy += [Reply(status=503, headers={"Retry-After": "9999"})]
    pauses: list[float] = []
    with scripted(*busy, Reply({"result": [[]]})) as script:
        UrlSource(UrlSettings(url=script.url), "all", sleep=pauses.append).find(["q"], 1)
    assert pauses[0] == 7 and 1 <= pauses[1] <= 2 and 2 <= pauses[2] <= 4 and pauses[3] == 30


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    whole = Reply({"result": [[hit("a")]]})
    with scripted(Reply(b'{"resu', headers={"Content-Length": "99", "Connection": "close"}), whole) as script:
        assert source(script).find(["q"], 1)[0].ranking == ("a",)


def test_the_token_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(Reply({"result": [[]]})) as script:
        source(script).find(["q"], 1)
        monkeypatch.setenv(TOKEN_VARIABLE, "secret")
        source(script).find(["q"], 1)
    assert script.tokens == [None, "Bearer secret"]


NONSENSE = "; let retriever.url name a server that speaks Search-R1's /retrieve"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(b"<html>"), "answers something else (its answer: Invalid JSON: expected value at line 1 column 1)" + NONSENSE),
        (Reply(b'{"result": [[{"document": {"text": "\xff"}}]]}'), "answers something else (its answer: Invalid JSON"),
        (Reply({"results": []}), "answers something else (result: Field required)" + NONSENSE),
        (Reply([]), "answers something else (its answer: Input should be an object)" + NONSENSE),
        (Reply({"result": []}), "answers something else (0 results to 1 queries)" + NONSENSE),
        (Reply({"result": [["a"]]}), "answers something else (result.0.0: Input should be an object"),
        (Reply({"result": [[{"id": 1}]]}), "answers something else (result.0.0.document: has neither contents nor text)"),
        (Reply({"result": [[hit("a", float("nan"))]]}), "answers something else (result.0.0.score: Input should be a finite"),
        (Reply({"detail": "no token"}, 401), f'answers 401 ({{"detail": "no token"}}); put its token into {TOKEN_VARIABLE}'),
        (Reply(b"", 404), "answers 404; give its whole address, as http://HOST:8000/retrieve"),
        (Reply(b"oh\nno", 501), "answers 501 (oh no); look into its log"),
        (Reply(b"", 307, {"Location": "http://elsewhere/"}), "answers 307; look into its log"),
        (Reply({"detail": "full"}, 503), 'answers 503 ({"detail": "full"}); look into its log'),
        (Reply(b"x", hangs=True), "gives no answer (nothing within 0.1 s); start the server, or correct retriever.url"),
    ],
)
def test_whatever_else_a_server_answers_is_one_line(reply: Reply, told: str) -> None:
    with scripted(reply) as script, pytest.raises(RetrievalError) as error:
        source(script, url_attempts=2, url_deadline_s=0.1 if reply.hangs else 30).find(["q"], 1)
    assert str(error.value).startswith(f"{script.url}: {told}") and "\n" not in str(error.value)
    assert len(script.asked) == (2 if reply.status == 503 or reply.hangs else 1)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/retrieve"
        with pytest.raises(RetrievalError) as error:
            UrlSource(UrlSettings(url=url), "all").check()
    told = "gives no answer ([Errno 111] Connection refused); start the server, or correct retriever.url"
    assert str(error.value) == f"{url}: {told}"


def test_an_answer_that_trickles_does_not_outlast_the_deadline() -> None:
    ticks = iter(range(100))  # a second passes whenever the clock is read
    body = {"result": [[hit("a")]]}
    with scripted(Reply(body)) as script, pytest.MonkeyPatch.context() as patch:
        patch.setattr("rollout.retrieval.url_client.time.monotonic", lambda: next(ticks))
        with pytest.raises(RetrievalError, match="nothing within 0.5 s"):
            source(script, url_deadline_s=0.5, url_attempts=1).find(["q"], 1)


def test_an_address_without_a_path_is_that_of_the_format() -> None:
    assert UrlSettings(url="http://host:8000").url == UrlSettings(url="http://host:8000/").url == "http://host:8000/retrieve"
    assert UrlSettings(url="https://[::1]/search?index=wiki").url == "https://[::1]/search?index=wiki"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        *((url, "no address of a server") for url in ("host:8000", "ftp://host", "http://", "http://host:x", "http://a b", "")),
        ("http://me:pw@host/retrieve", "a name or password would be written into the run folder"),
    ],
)
def test_what_is_no_address_is_refused(url: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        UrlSettings(url=url)


@pytest.mark.parametrize(("told", "used"), [("", None), (" \n", None), ("secret\n", "secret"), (" a b ", "a b")])
def test_a_token_is_read_without_the_white_space_round_it(told: str, used: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, told)
    assert own_token() == used


@pytest.mark.parametrize("told", ["sécret", "a\nb", "€"])
def test_a_token_that_no_header_can_hold_is_refused(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, told)
    with pytest.raises(SettingsError, match=f"{TOKEN_VARIABLE}: holds signs that a header cannot"):
        own_token()
