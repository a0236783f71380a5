"""`retrieve` under load: is every request answered, and rightly, and does its memory stay where it is?

    python -m benchmarks.retrieve_server [--clients 200] [--seconds 60] [--size 20000]

Every client asks for a few passages by their own words, as soon as it has its last answer, and checks that each comes first.
The server is a process of its own. The last line is JSON; memory is the server's, after a quarter of the time and at the end.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
WORDS, OF_A_PASSAGE, OF_A_QUERY, MOST_QUERIES, TOPK = 5000, 60, 8, 4, 3


@dataclass
class Load:
    """What clients met. problems: how often each; milliseconds: of the answers that were right."""

    url: str
    texts: list[list[str]]
    ends_at: float
    milliseconds: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)

    async def client(self, session: aiohttp.ClientSession, seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < self.ends_at:
            wanted = [rng.randrange(len(self.texts)) for _ in range(rng.randint(1, MOST_QUERIES))]
            queries = [" ".join(self.texts[each][:OF_A_QUERY]) for each in wanted]
            begun = time.monotonic()
            try:
                async with session.post(self.url, json={"queries": queries, "topk": TOPK, "return_scores": True}) as response:
                    said = await response.json()
                    found = [hits[0]["document"]["id"] for hits in said["result"]]
            except (aiohttp.ClientError, TimeoutError, LookupError) as error:
                self.problems[f"{type(error).__name__}: {error}"] += 1
                continue
            if found == [str(each) for each in wanted]:
                self.milliseconds.append(1000 * (time.monotonic() - begun))
            else:
                self.problems["wrong passages"] += 1


def measured(clients: int, seconds: float, size: int) -> dict[str, object]:
    rng = random.Random(0)
    # its number, and words that others have, too
    texts = [[f"p{n}", *(f"w{rng.randrange(WORDS)}" for _ in range(OF_A_PASSAGE))] for n in range(size)]
    with served(texts) as (url, server):
        load = Load(url, texts, time.monotonic() + seconds)
        memory_mb = asyncio.run(_loaded(load, clients, seconds, server))
        whole = sum(load.problems.values()) == 0
    p50, p99 = np.percentile(load.milliseconds, [50, 99])
    return {
        "bench": "retrieve_server",
        "clients": clients,
        "seconds": seconds,
        "passages": size,
        "answered": len(load.milliseconds),
        "problems": dict(load.problems),
        "ok": whole,
        "requests_per_s": round(len(load.milliseconds) / seconds, 1),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "memory_mb": [round(each, 1) for each in memory_mb],
    }


@contextmanager
def served(texts: list[list[str]]) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server of these passages, whose ids are their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "passages.jsonl"
        file.write_text("".join(json.dumps({"id": str(n), "text": " ".join(text)}) + "\n" for n, text in enumerate(texts)))
        command = [sys.executable, "launch.py", "retrieve", "--port", "0", "--passages", str(file), "--data.cache", folder]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().partition(" at ")[2].partition(";")[0], psutil.Process(process.pid)
            finally:
                process.terminate()
        assert process.returncode == 0, f"the server ended with {process.returncode}"


async def _loaded(load: Load, clients: int, seconds: float, server: psutil.Process) -> list[float]:
    """MB of the server's own memory, after a quarter of the time and at the end."""
    connections = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connections, raise_for_status=True) as session:
        tasks = [asyncio.create_task(load.client(session, seed)) for seed in range(clients)]
        await asyncio.sleep(seconds / 4)
        early = server.memory_full_info().uss / 1e6
        await asyncio.gather(*tasks)
        return [early, server.memory_full_info().uss / 1e6]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=20_000)
    options = parser.parse_args()
    print(json.dumps(measured(options.clients, options.seconds, options.size)))


if __name__ == "__main__":
    main()
