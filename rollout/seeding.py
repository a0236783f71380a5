"""Where randomness comes from: every draw has a generator of its own, so that it does not matter who makes it, or when."""

import hashlib

import numpy as np

from rollout.types import Prompt


def rng_of(prompt: Prompt, seed: int, purpose: str = "") -> np.random.Generator:
    """The prompt's own source of randomness in this epoch, one for each purpose; a second attempt draws afresh."""
    told = f"{seed}/{prompt.epoch}/{prompt.attempt}/{prompt.id}"
    digest = hashlib.sha256((f"{purpose}/{told}" if purpose else told).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
