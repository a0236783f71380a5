"""`retrieve` answers clients of Search-R1's format, ours too, refuses what it cannot bear, and loses nothing at its end."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
import pytest
import requests
from aiohttp.test_utils import TestServer

from cluster.commands.retrieve import serve
from cluster.commands.retrieve_server import MOST_BYTES, RetrieveServer, ServerOptions
from launch import main
from rollout.config import DataSettings
from rollout.retrieval.open import open_retriever, open_source
from rollout.retrieval.query import build_query
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource, PassageSource
from rollout.retrieval.url_settings import TOKEN_VARIABLE, UrlSettings
from rollout.retrieval.url_source import UrlSource
from rollout.types import Retrieval
from tests.cluster.commands.echo import Echo
from tests.cluster.runs import ROOT, rows
from tests.rollout.retrieval.encoders import sentence_encoder

ROWS = [("a", "Zebras", "a zebra eats grass"), ("b", "", "grass is green\nand a violin is brown"), ("c", "Violins", "a violin")]


class Broken:
    def find(self, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        raise OSError("the disk\nis gone")


Post = Callable[..., Any]


@asynccontextmanager
async def served(source: PassageSource, **options: Any) -> AsyncIterator[tuple[str, Post]]:
    """The server's address, and a POST to it that gives status, headers and what the JSON says."""
    server = TestServer(RetrieveServer(source, ServerOptions(**options), {"passages": 3}).application())
    async with server, aiohttp.ClientSession() as session:
        url = str(server.make_url("/retrieve"))

        async def post(body: Any, **more: Any) -> tuple[int, Any, Any]:
            data = body if isinstance(body, bytes) else json.dumps(body)
            async with session.post(url, data=data, **more) as response:
                return response.status, response.headers, await response.json()

        yield url, post


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> LocalSource:
    folder = tmp_path_factory.mktemp("corpus")
    file = folder / "passages.jsonl"
    file.write_text("".join(json.dumps({"id": id, "title": title, "text": text}) + "\n" for id, title, text in ROWS))
    source = open_source(DataSettings(passages=file, cache=folder / "cache", query="all", language="en"), 0)
    assert source is not None
    return source


async def test_a_client_by_the_letter_of_the_format_is_answered(source: LocalSource) -> None:
    def client(url: str) -> list[list[dict[str, Any]]]:
        payload = {"queries": ["zebra grass", "violin"], "topk": 2, "return_scores": True}
        return requests.post(url, json=payload).json()["result"]

    async with served(source) as (url, _):
        zebra, violin = await asyncio.to_thread(client, url)
    assert [hit["document"]["id"] for hit in zebra] == ["a", "b"] and [hit["document"]["id"] for hit in violin] == ["c", "b"]
    title, *text = zebra[0]["document"]["contents"].split("\n")
    assert (title, text) == ("Zebras", ["a zebra eats grass"])
    assert zebra[0]["score"] > zebra[1]["score"] > 0


async def test_without_scores_documents_stand_alone_and_topk_is_the_servers(source: LocalSource) -> None:
    async with served(source, topk=1) as (_, post):
        for body in ({"queries": ["violin"]}, {"queries": ["violin"], "topk": None}, {"queries": ["violin"], "topk": 0}):
            status, _, said = await post(body)
            document = {"id": "c", "contents": "Violins\na violin", "title": "Violins", "text": "a violin"}
            assert (status, said) == (200, {"result": [[document]]})


async def test_no_query_has_no_result_and_a_query_without_words_none_either(source: LocalSource) -> None:
    async with served(source) as (_, post):
        assert (await post({"queries": []}))[2] == {"result": []}
        assert (await post({"queries": ["", "xylophone"]}))[2] == {"result": [[], []]}


async def test_our_client_finds_over_the_wire_what_the_index_finds_here(source: LocalSource) -> None:
    questions = ["zebra grass", "violin", "green grass", "nothing of it"]
    async with served(source) as (url, _):
        found = await asyncio.to_thread(UrlSource(UrlSettings(url=url, url_batch=3), "all").find, questions, 2)
    here = source.find(questions, 20)
    assert [each.passages for each in found] == [each.passages[:2] for each in here]
    assert [each.scores for each in found] == [each.scores[:2] for each in here]
    assert [each.ranking for each in found] == [tuple(passage.id for passage in each.passages) for each in here]


async def test_an_index_of_words_and_vectors_is_served_as_it_answers_here(tmp_path: Path) -> None:
    file = tmp_path / "passages.jsonl"
    file.write_text("".join(json.dumps({"id": id, "title": title, "text": text}) + "\n" for id, title, text in ROWS))
    data = DataSettings(passages=file, cache=tmp_path, query="all", language="en")
    source = open_retriever(data, 0, RetrieverSettings(path=str(sentence_encoder(tmp_path)))).source
    assert source is not None
    async with served(source) as (url, _):
        [found] = await asyncio.to_thread(UrlSource(UrlSettings(url=url), "all").find, ["violin"], 2)
    [here] = source.find(["violin"], 2)
    assert found == replace(here, parts={}) and here.parts


async def test_health_is_told_to_everybody() -> None:
    async with served(Echo(), token="secret") as (url, _), aiohttp.ClientSession() as session:
        async with session.get(url.replace("/retrieve", "/health")) as response:
            assert await response.json() == {"status": "ok", "passages": 3}


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "Basic secret", "secret", "Bearer sécret"])
async def test_who_does_not_send_the_token_is_refused(given: str | None) -> None:
    async with served(Echo(), token="secret") as (_, post):
        status, headers, said = await post({"queries": ["q"]}, headers={"Authorization": given} if given else {})
        assert (status, headers["WWW-Authenticate"], said["detail"]) == (
            401,
            "Bearer",
            "send the token as Authorization: Bearer",
        )
        assert (await post({"queries": ["q"]}, headers={"Authorization": "bearer secret"}))[0] == 200


async def test_our_client_sends_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    async with served(Echo(), token="secret") as (url, _):
        await asyncio.to_thread(UrlSource(UrlSettings(url=url), "all").check)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b'{"queries": ["\\ud800"]}', 400, "Invalid JSON: "),
        (b"\xff", 400, "Invalid JSON: "),
        ([], 422, "the body: Input should be an object"),
        ({}, 422, "queries: Field required"),
        ({"queries": "who ?"}, 422, "queries: Input should be a valid array"),
        ({"queries": ["a", 3]}, 422, "queries.1: Input should be a valid string"),
        ({"queries": ["a"], "topk": -1}, 422, "topk: Input should be greater than or equal to 0"),
        ({"queries": ["a"], "topk": 10**9}, 422, "1 queries with topk 1000000000 want more than 100000 passages"),
        ({"queries": ["a"] * 10_001}, 422, "queries: List should have at most 10000 items"),
        (b" " * (MOST_BYTES + 1), 413, f"Maximum request body size {MOST_BYTES} exceeded"),
    ],
)
async def test_nonsense_is_refused_with_a_line(body: Any, status: int, detail: str) -> None:
    source = Echo()
    async with served(source) as (_, post):
        refused, _, said = await post(body)
    assert refused == status and said["detail"].startswith(detail) and "\n" not in said["detail"]
    assert not source.searched


async def test_another_place_or_method_is_refused_with_a_line() -> None:
    async with served(Echo()) as (url, _), aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST") and "detail" in await response.json()
        async with session.post(f"{url}/other") as response:
            assert response.status == 404 and "detail" in await response.json()


async def test_one_request_too_many_is_told_to_come_again() -> None:
    source = Echo(waits=True)
    async with served(source, queue=1) as (_, post):
        first = asyncio.create_task(post({"queries": ["0"], "topk": 1}))
        await asyncio.to_thread(source.begun.wait)
        status, headers, said = await post({"queries": ["1"]})
        assert (status, headers["Retry-After"]) == (503, "1") and said == {"detail": "1 requests are under way; come again"}
        source.may_end.set()
        assert (await first)[0] == 200 and (await post({"queries": ["1"]}))[0] == 200


async def test_a_request_that_takes_too_long_is_told_so_and_makes_room() -> None:
    source = Echo(waits=True)
    async with served(source, queue=1, deadline_s=0.05) as (_, post):
        for _ in range(2):
            status, _, said = await post({"queries": ["0"]})
            assert (status, said) == (504, {"detail": "took longer than 0.05 s"})
        source.may_end.set()
    assert source.searched == [["0"]]  # the second was given up before it was searched


async def test_a_search_that_fails_fails_its_request_alone(capsys: pytest.CaptureFixture[str]) -> None:
    async with served(Broken()) as (url, post), aiohttp.ClientSession() as session:
        status, _, said = await post({"queries": ["0"]})
        assert (status, said) == (500, {"detail": "the search failed"})
        async with session.get(url.replace("/retrieve", "/health")) as response:
            assert response.status == 200
    assert capsys.readouterr().err == "a request failed: OSError: the disk\n"


async def test_a_signal_ends_it_once_what_is_under_way_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    source, bound = Echo(waits=True), socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/retrieve"
    options = ServerOptions()
    serving = asyncio.create_task(serve(RetrieveServer(source, options, {"passages": 3}), options, bound))
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(session.post(url, json={"queries": ["0"], "topk": 1}))
        await asyncio.to_thread(source.begun.wait)
        said = capsys.readouterr()
        os.kill(os.getpid(), signal.SIGTERM)
        while not (heard := capsys.readouterr().err):
            await asyncio.sleep(0)
        source.may_end.set()
        async with await asked as response:
            assert (await response.json())["result"][0][0]["id"] == "0"
        await serving
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)
    assert said.out == f"3 passages are searched at {url}; Ctrl-C ends it\n"
    assert heard == "SIGTERM: no more requests are taken\n"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--host", "0.0.0.0"], f"host: 0.0.0.0 is reached from elsewhere; put a token into {TOKEN_VARIABLE}"),
        (["--host", "::"], "host: :: is reached from elsewhere"),
        (["--host", "no.such.host.invalid", "--token", "t"], "host: no.such.host.invalid is no address of this machine"),
        (["--host", "192.0.2.1", "--token", "t"], "host: 192.0.2.1 cannot be had (Cannot assign requested address)"),
        (["--port", "70000"], "port: '70000' is refused: "),
        (["--token", ""], "token: '' is refused: "),
        (["--data.train", "x"], "--data.train: unknown setting"),
        (["--retriever.url", "http://host"], "--retriever.url: unknown setting"),
        (["--retriever.mode", "dense"], "retriever.path: is missing, and retriever.mode dense needs an encoder; give one"),
        (
            ["--retriever.dtype", "float16"],
            "retriever.dtype: float16 has no effect with retriever.mode lexical; set it to float32",
        ),
        (["--passages", "nowhere.jsonl"], "nowhere.jsonl: "),
    ],
)
def test_what_cannot_be_served_is_one_line(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--passages", "p.jsonl"] if "--passages" not in flags else ["--port", "0"]
    assert main(["retrieve", *given, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}") and error.count("\n") == 1


def test_a_port_that_is_taken_is_told_before_passages_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["retrieve", "--passages", "nowhere.jsonl", "--port", str(port)]) == 2
    remedy = "give another, or --port 0 for a free one"
    assert capsys.readouterr().err == f"error: port: {port} cannot be had (Address already in use); {remedy}\n"


@contextmanager
def serving(source: PassageSource) -> Iterator[str]:
    """The address of a server in a thread beside."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = TestServer(RetrieveServer(source, ServerOptions(), {}).application())
    try:
        asyncio.run_coroutine_threadsafe(served.start_server(), loop).result()
        yield str(served.make_url("/retrieve"))
    finally:
        asyncio.run_coroutine_threadsafe(served.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_run_and_a_chat_read_what_a_server_finds(
    train_locally: Callable[..., Path],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = DataSettings(passages=data_dir / "passages.jsonl", cache=tmp_path, query="all", language="en")
    source = open_source(here, 0)
    assert source is not None
    with serving(source) as url:
        run = train_locally("--data.passages", "null", "--retriever.url", url)
        monkeypatch.setattr(sys, "stdin", io.StringIO("what animal has your friend linda got ?\n"))
        capsys.readouterr()
        assert main(["chat", "--checkpoint", str(run), "--questions"]) == 0
    [sample] = pq.read_table(run / "samples").slice(0, 1).to_pylist()
    [found] = source.find([build_query(sample["question"], "persona+last_turn")], 2)
    assert sample["passage_ids"] == [passage.id for passage in found.passages]
    [asked] = source.find(["what animal has your friend linda got ?"], 2)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == [each.id for each in asked.passages]
    assert rows(run / "evaluations.jsonl")[-1]["recall@5"] is not None and "readings" not in rows(run / "evaluations.jsonl")[-1]


def test_a_process_serves_passages_until_it_is_told_to_end(data_dir: Path, python: str, tmp_path: Path) -> None:
    command = [python, "launch.py", "retrieve", "--passages", str(data_dir / "passages.jsonl"), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--data.cache", str(tmp_path)], cwd=ROOT, **pipes) as process:
        url = process.stdout.readline().split(" at ")[1].partition(";")[0]
        rows = [json.loads(line) for line in (data_dir / "passages.jsonl").read_text().splitlines()]
        found = UrlSource(UrlSettings(url=url), "all").find([row["text"] for row in rows], 1)
        process.terminate()
        _, error = process.communicate()
    assert process.returncode == 0 and error.endswith("SIGTERM: no more requests are taken\n")
    assert [each.ranking[0] for each in found] == [row["id"] for row in rows]
