"""Sampling groups from a T5-small FiD reader.

    python -m benchmarks.sampler [--group_sizes 4 8 16] [--repetitions 3] [--threads 2]

patch     the patch's way: one response at a time of every prompt, each time encoded anew, by transformers' `generate`
generate  each prompt is encoded once, then transformers' `generate(num_return_sequences=k)`
ours      the policy's own `sample`

Random weights, 2 prompts of 6 x 128 tokens, exactly 24 tokens a response, float32. The last line is JSON, its speedups at k=8.
"""

import argparse
import json
from functools import partial

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.machine import median_seconds
from benchmarks.readers import Shape, encoded, random_contexts, reader, stacked
from rollout.policy.decoding import Decoding
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Context

SHAPE = Shape()
HEADLINE = 8
SAMPLED = {"do_sample": True, "top_k": 0, "min_new_tokens": SHAPE.response_tokens, "max_new_tokens": SHAPE.response_tokens}


@torch.inference_mode()
def patch_way(policy: FidPolicy, contexts: list[Context], k: int) -> int:
    drawn = 0
    for _ in range(k):
        states = BaseModelOutput(last_hidden_state=encoded(policy.model, stacked(contexts)))
        drawn += policy.model.generate(encoder_outputs=states, **SAMPLED)[:, 1:].numel()
    return drawn


@torch.inference_mode()
def by_generate(policy: FidPolicy, contexts: list[Context], k: int) -> int:
    states = BaseModelOutput(last_hidden_state=encoded(policy.model, stacked(contexts)))
    return policy.model.generate(encoder_outputs=states, num_return_sequences=k, **SAMPLED)[:, 1:].numel()


def ours(policy: FidPolicy, contexts: list[Context], k: int) -> int:
    uniforms = np.random.default_rng(0).random((len(contexts) * k, SHAPE.response_tokens))
    groups = policy.sample(contexts, k, Decoding(SHAPE.response_tokens, uniforms=uniforms)).responses
    return sum(len(response.token_ids) for group in groups for response in group)


WAYS = {"patch": patch_way, "generate": by_generate, "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group_sizes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if HEADLINE not in options.group_sizes:
        parser.error(f"--group_sizes: lacks {HEADLINE}, whose speedups the last line tells; add it")
    torch.set_num_threads(options.threads)
    policy, contexts = reader(0), random_contexts(SHAPE)
    result: dict[str, object] = {"bench": "sampler"}
    print(f"{'k':>3} {'patch':>9} {'generate':>9} {'ours':>9} {'over patch':>10} {'over generate':>14} {'our tokens/s':>13}")
    for k in options.group_sizes:
        calls = {name: partial(way, policy, contexts, k) for name, way in WAYS.items()}
        tokens = SHAPE.prompts * k * SHAPE.response_tokens
        drawn = {name: call() for name, call in calls.items()}
        assert set(drawn.values()) == {tokens}, f"a response ended by itself: {drawn}"
        seconds = median_seconds(calls, options.repetitions, warm_ups=0)
        naive, generate = seconds["patch"] / seconds["ours"], seconds["generate"] / seconds["ours"]
        taken = " ".join(f"{seconds[name]:7.2f} s" for name in WAYS)
        print(f"{k:>3} {taken} {naive:9.2f}x {generate:13.2f}x {tokens / seconds['ours']:13.0f}", flush=True)
        if k == HEADLINE:
            result |= {"speedup_naive": round(naive, 2), "speedup_generate": round(generate, 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
