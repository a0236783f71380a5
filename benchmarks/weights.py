"""300 MB of policy weights from the learner to three samplers on this machine, loaded into their models.

    python -m benchmarks.weights [--megabytes 300] [--samplers 3] [--sessions 3] [--later 5]

tensors  a dict of torch tensors, as `state_dict` gives it, through the object store, then `load_state_dict`
ours     one flat array as a method's result, read where it lies, then `load_flat`

Each way runs in fresh Ray sessions, in turns; the first broadcast of a session and the median of its later ones are timed from
the learner's call until the last sampler has loaded. Every sampler then proves that its weights are the learner's. Our checksum
is timed apart: `taken` by the learner and `checked` by a sampler in addition. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import ray
import torch
from torch import nn

from rollout.policy.weights import FlatWeights, flatten, load_flat, wire_buffer

TENSORS = 75


class Holder:
    """A model of equal matrices; learner and samplers alike."""

    def __init__(self, megabytes: int, seed: int):
        side = int((megabytes * 10**6 / 4 / TENSORS) ** 0.5)
        generator = torch.Generator().manual_seed(seed)
        self.model = nn.ParameterList([torch.randn(side, side, generator=generator) for _ in range(TENSORS)])
        self.wire = wire_buffer(list(self.model), torch.float32)

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.model:
                parameter.add_(1.0)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self.model.state_dict().items()}

    def flat(self) -> np.ndarray:
        return flatten(list(self.model), torch.float32, self.wire)

    def load_tensors(self, weights: list[Any]) -> None:
        self.model.load_state_dict(ray.get(weights[0]))

    def load_flat(self, weights: list[Any]) -> None:
        load_flat(list(self.model), ray.get(weights[0]))

    def digest(self) -> int:
        return FlatWeights.of(self.flat()).checksum

    def checksum_seconds(self) -> tuple[float, float]:
        flat = self.flat()
        start = time.perf_counter()
        weights = FlatWeights.of(flat)
        taken = time.perf_counter()
        weights.check()
        return taken - start, time.perf_counter() - taken


WAYS = {"tensors": ("tensors", "load_tensors"), "ours": ("flat", "load_flat")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--samplers", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--later", type=int, default=5)
    options = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # Ray's workers are nice by default, so that anything else would slow them
    first: dict[str, list[float]] = {name: [] for name in WAYS}
    later: dict[str, list[float]] = {name: [] for name in WAYS}
    checksums = []
    for _ in range(options.sessions):
        for name in WAYS:
            seconds, checksum = session(name, options.megabytes, options.samplers, options.later)
            first[name].append(seconds[0])
            later[name].append(statistics.median(seconds[1:]))
            checksums.append(checksum)
    medians = {name: (statistics.median(first[name]), statistics.median(later[name])) for name in WAYS}
    print(f"{'':>8} {'first':>9} {'later':>9}")
    for name, (cold, warm) in medians.items():
        print(f"{name:>8} {cold:7.3f} s {warm:7.3f} s")
    taken, checked = (statistics.median(column) for column in zip(*checksums, strict=True))
    print(f"checksum: taken in {taken:.3f} s by the learner, checked in {checked:.3f} s by each sampler")
    speedups = [round(theirs / ours, 2) for theirs, ours in zip(medians["tensors"], medians["ours"], strict=True)]
    print(json.dumps({"bench": "weights", "speedup_first": speedups[0], "speedup_warm": speedups[1], "checksum_s": checked}))


def session(way: str, megabytes: int, samplers: int, later: int) -> tuple[list[float], tuple[float, float]]:
    """Seconds of every broadcast in a fresh Ray, and of taking and checking the checksum."""
    give, load = WAYS[way]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # a socket's path must be short
        ray.init(
            address="local",
            num_cpus=samplers + 1,
            object_store_memory=8 * megabytes * 10**6,
            include_dashboard=False,
            logging_level="error",
            _temp_dir=folder,
        )
        try:
            actor = ray.remote(num_cpus=1)(Holder)
            learner = actor.remote(megabytes, 0)
            receivers = [actor.remote(megabytes, 1 + i) for i in range(samplers)]
            checksum = ray.get(learner.checksum_seconds.remote())
            ray.get([receiver.digest.remote() for receiver in receivers])
            seconds = []
            for _ in range(1 + later):
                ray.get(learner.step.remote())
                start = time.perf_counter()
                weights = getattr(learner, give).remote()
                ray.get([getattr(receiver, load).remote([weights]) for receiver in receivers])
                seconds.append(time.perf_counter() - start)
                del weights
            digests = ray.get([holder.digest.remote() for holder in (learner, *receivers)])
            assert len(set(digests)) == 1, "a sampler has other weights than the learner"
            return seconds, checksum
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
