import resource

import torch


def peak_memory_mb(device: str) -> float:
    """Most MB (10^6 bytes) that this process has held: of the GPU where it computes on one, else resident."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
