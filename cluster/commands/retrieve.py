"""`retrieve`: a server of our own index that speaks the format of Search-R1's, without Ray."""

import asyncio
import errno
import socket
from collections.abc import Sequence

from aiohttp import web
from pydantic import Field

from cluster.commands.retrieve_server import RetrieveServer, ServerOptions, is_loopback
from cluster.output import print_err, print_out
from cluster.settings.effects import check_effects_of_flags
from cluster.settings.flags import flags_of, parse_flags
from cluster.settings.tree import Settings, read_by
from cluster.settings.values import build, split
from cluster.training.stop_signals import install_stop_handlers
from rollout.data.file_settings import Files
from rollout.errors import SettingsError
from rollout.language import language_of
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.open import open_retriever
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.url_settings import TOKEN_VARIABLE, own_token
from rollout.text import AUTO


class RetrieveOptions(ServerOptions):
    passages: Files = Field(description="passages to search: .jsonl or .parquet files, patterns, folders")


def retrieve(argv: Sequence[str]) -> None:
    """Answers POST /retrieve {"queries", "topk", "return_scores"} from these passages, in the format that Search-R1's clients
    speak. GET /health tells whether it is well. Ctrl-C ends it once what is under way is answered."""
    known = [*flags_of(RetrieveOptions), *flags_of(Settings, only=read_by("retrieve"))]
    options, values = split(RetrieveOptions, parse_flags("retrieve", retrieve.__doc__, argv, known))
    options = _with_token(options)
    settings = build(Settings, values)
    check_effects_of_flags(settings, values)
    _check(settings.retriever)
    with _bound(options) as listening:  # a port that is taken is told before an index is built
        corpus = Corpus.open(options.passages, settings.data.cache)
        for text in corpus.told:
            print_err(text)
        data = settings.data.with_values(passages=options.passages, query="all")  # a query is searched as it is
        if data.language == AUTO:
            data = data.with_values(language=language_of([], corpus))
            print_err(data.text_rules.told())
        mode = settings.retriever.used_mode
        source = open_retriever(data, 0, settings.retriever, device="cpu" if mode == "lexical" else _device()).source
        assert source is not None, "passages are given"
        server = RetrieveServer(source, options, {"passages": len(corpus), "mode": mode})
        asyncio.run(serve(server, options, listening))


def _check(retriever: RetrieverSettings) -> None:
    if retriever.used_mode != "lexical" and retriever.path is None:
        raise SettingsError(f"retriever.path: is missing, and retriever.mode {retriever.used_mode} needs an encoder; give one")


def _device() -> str:
    import torch  # BM25 does without

    return "cuda" if torch.cuda.is_available() else "cpu"


def _with_token(options: RetrieveOptions) -> RetrieveOptions:
    token = options.token or own_token()
    if token is None and not is_loopback(options.host):
        raise SettingsError(
            f"host: {options.host} is reached from elsewhere; put a token into {TOKEN_VARIABLE}, or listen at 127.0.0.1"
        )
    return options.with_values(token=token)


def _bound(options: RetrieveOptions) -> socket.socket:
    """Not listening yet: whoever comes before the index is there is refused, not left waiting."""
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"host: {options.host} is no address of this machine ({error.strerror}); give another") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        name, value = ("port", options.port) if error.errno in (errno.EADDRINUSE, errno.EACCES) else ("host", options.host)
        raise SettingsError(
            f"{name}: {value} cannot be had ({error.strerror}); give another, or --port 0 for a free one"
        ) from error
    return bound


async def serve(server: RetrieveServer, options: RetrieveOptions, bound: socket.socket) -> None:
    """Until a signal comes and what is under way then is answered."""
    stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        handler_cancellation=True,  # nobody searches for a client that has gone
        shutdown_timeout=options.deadline_s,
    )
    await runner.setup()
    try:
        install_stop_handlers(stopped.set_result)
        await web.SockSite(runner, bound).start()
        host, port = bound.getsockname()[:2]
        at = f"http://{f'[{host}]' if ':' in host else host}:{port}/retrieve"
        print_out(f"{server.health['passages']} passages are searched at {at}; Ctrl-C ends it")
        print_err(f"{await stopped}: no more requests are taken")
    finally:
        await runner.cleanup()
