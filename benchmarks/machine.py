"""What every benchmark of arithmetic needs: repetitions in turn, and what the machine can do at best."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def median_seconds(ways: Mapping[str, Callable[[], object]], repetitions: int, warm_ups: int = 1) -> dict[str, float]:
    """Median seconds of each way; they take turns, so that a slow minute of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(warm_ups + repetitions):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repetition >= warm_ups:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def matmul_flops_per_second(size: int = 2048, repetitions: int = 9) -> float:
    """Of a large float32 matrix product with the threads that are set."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / median_seconds({"matmul": lambda: a @ b}, repetitions)["matmul"]
