import asyncio
import os
import threading
import time
from pathlib import Path

import ray

from rollout.types import Passage, Prompt

HELD = "TESTS_HELD"  # an environment's variable: steps, and a run's folder


def one_each(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    return [1.0] * len(responses)


def of_every_second_response(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float | None]:
    """Of some prompts all responses are worth the same, of others every second one."""
    if int(prompt.id.split("-")[1]) % 3 == 0:
        return [1.0] * len(responses)
    return [None if i % 2 else float(len(text)) for i, text in enumerate(responses)]


def never_a_number(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    return [float("nan")] * len(responses)


def kill_samplers_at_times(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    """Kills every sampler whenever one of a few prompts is scored."""
    if int(prompt.id.split("-")[1]) % 8 == 0:
        _kill("sampler-")
    return [0.0] * len(responses)


def that_kills_the_learner_at_a_prompt(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    if prompt.id == "train-23":
        _kill("learner-")
    return [0.0] * len(responses)


def _kill(prefix: str) -> None:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(prefix):
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


def that_dies_of_a_prompt(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    if prompt.id == "train-23":
        os._exit(1)
    return [0.0] * len(responses)


def that_raises(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    raise KeyError("judge")


def that_raises_at_a_held_out_prompt(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    if prompt.id == "valid-3":
        raise KeyError("judge")
    return [0.0] * len(responses)


def that_hangs(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    threading.Event().wait()
    return [0.0] * len(responses)


def that_holds(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    """Of the run that HELD names, once it has so many steps: not before the file `.go` is beside its folder."""
    held = os.environ.get(HELD)
    if held is not None:
        steps, run = held.split(" ", 1)
        metrics, go = Path(run) / "metrics.jsonl", Path(run + ".go")
        while not go.exists() and len(metrics.read_text().splitlines() if metrics.exists() else ()) >= int(steps):
            time.sleep(0.05)
    return [0.0] * len(responses)


async def length(text: str) -> float:
    await asyncio.sleep(0)
    return len(text) / 100


async def awaited(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    return [await length(text) for text in responses]


class OwnLoop:
    """Runs an event loop, when it is made and at each call."""

    def __init__(self, factor: float):
        self.factor = factor * asyncio.run(length("x" * 100))

    def __call__(self, prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
        return [self.factor * asyncio.run(length(text)) for text in responses]
