"""A learner pass of a T5-small FiD reader: policy forward and backward, reference forward.

    python -m benchmarks.learner [--group_sizes 4 8 16] [--repetitions 3] [--threads 2]

patch        the patch's way: every response has its own encoder pass, for policy and reference
encode-once  each prompt is encoded once, its states are repeated for the group
ours         the policy's own `score`: encoded once, and one cross-attention K/V for the whole group

Random weights, 2 prompts of 6 x 128 tokens, responses of 24 tokens, float32. `max_rel_diff` compares ours with the patch's way:
the largest difference of log-probs and of every gradient over its largest value. `gemm_share`: arithmetic that the mathematics
needs (four forwards' matrix products; what is recomputed does not count) a second, over that of one large matrix product.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import matmul_flops_per_second, median_seconds
from benchmarks.readers import VOCABULARY, Shape, encode_once_logprobs, patch_logprobs, random_contexts, reader
from learner.algorithm import LossConfig
from learner.loss import token_weights
from learner.objective import policy_loss
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Context

SHAPE = Shape()
LogProbs = Callable[[FidPolicy, list[Context], torch.Tensor], torch.Tensor]


def our_logprobs(policy: FidPolicy, contexts: list[Context], responses: torch.Tensor) -> torch.Tensor:
    return policy.token_logprobs(contexts, responses, 1.0).logprobs.flatten(0, 1)


WAYS: dict[str, LogProbs] = {"patch": patch_logprobs, "encode-once": encode_once_logprobs, "ours": our_logprobs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group_sizes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy, reference, contexts = reader(0), reader(1), random_contexts(SHAPE)
    reference.model.requires_grad_(False)
    peak = matmul_flops_per_second()
    result: dict[str, object] = {"bench": "learner"}
    differences, shares = [], []
    print(f"{'k':>3} {'patch':>9} {'encode-once':>12} {'ours':>9} {'speedup':>8} {'rel. diff':>10} {'of matmul':>10}")
    for k in options.group_sizes:
        generator = torch.Generator().manual_seed(k)
        responses = torch.randint(5, VOCABULARY - 128, (SHAPE.prompts, k, SHAPE.response_tokens), generator=generator)
        passes = {name: partial(learner_pass, way, policy, reference, contexts, responses) for name, way in WAYS.items()}
        differences.append(largest_difference(passes["ours"](), passes["patch"]()))
        assert differences[-1] < 1e-4, f"ours computes something else: {differences[-1]}"
        seconds = median_seconds(passes, options.repetitions, warm_ups=0)
        shares.append(4 * forward_flops(policy, contexts, responses) / seconds["ours"] / peak)
        speedup = seconds["patch"] / seconds["ours"]
        result[f"speedup_k{k}"] = round(speedup, 2)
        figures = " ".join(f"{seconds[name]:{width}.2f} s" for name, width in (("patch", 7), ("encode-once", 10), ("ours", 7)))
        print(f"{k:>3} {figures} {speedup:7.2f}x {differences[-1]:10.1e} {shares[-1]:10.2f}", flush=True)
    print(f"one matrix product of 2048 x 2048: {peak / 1e9:.0f} GFLOP/s on {options.threads} threads")
    print(json.dumps(result | {"max_rel_diff": max(differences), "gemm_share": round(min(shares), 3)}))


def learner_pass(
    logprobs: LogProbs, policy: FidPolicy, reference: FidPolicy, contexts: list[Context], responses: torch.Tensor
) -> dict[str, torch.Tensor]:
    """GRPO with k3 against the reference; returns the log-probs and every gradient."""
    with torch.no_grad():
        reference_logprobs = logprobs(reference, contexts, responses)
    policy_logprobs = logprobs(policy, contexts, responses)
    count, length = policy_logprobs.shape
    loss, _ = policy_loss(
        policy_logprobs,
        policy_logprobs.detach(),
        torch.linspace(-1, 1, count),
        token_weights(torch.full((count,), length), "sequence", length),
        torch.ones(count, length, dtype=torch.bool),
        LossConfig(),
        reference_logprobs=reference_logprobs,
    )
    policy.model.zero_grad()
    loss.backward()
    gradients = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}
    return {"log-probs": policy_logprobs.detach(), **gradients}


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Over the largest value, of each tensor; NaN where one is not finite."""
    relative = [(ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-30) for name in theirs]
    return float(torch.stack(relative).max())


def forward_flops(policy: FidPolicy, contexts: list[Context], responses: torch.Tensor) -> int:
    """Matrix products of one group-shared forward."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        our_logprobs(policy, contexts, responses)
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
