"""Batches of any size, and what a policy keeps of one for its backward pass."""

import numpy as np
import torch


def batch(group_size, context_length, rows, groups=3, length=4):
    """Contexts of `rows` rows each, and responses that all differ."""
    rng = np.random.default_rng(0)
    contexts = [tuple(rng.integers(3, 40, context_length).astype(np.int32) for _ in range(rows)) for _ in range(groups)]
    return contexts, torch.from_numpy(rng.integers(3, 40, (groups, group_size, length)))


def kept_bytes(policy, contexts, ids):
    """Of all tensors that autograd keeps of one forward, each once, the parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.token_logprobs(contexts, ids, 1.0)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in parameters)
