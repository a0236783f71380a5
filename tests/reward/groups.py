"""Groups of bare texts, as the reward sees them."""

import numpy as np

from rollout.types import Group, Prompt, Response, Retrieval, Version


def make_group(texts: list[str], answers: tuple[str, ...], gold: tuple[str, ...] = (), ranking: tuple[str, ...] = ()) -> Group:
    nothing = np.zeros(0, np.float32)
    return Group(
        prompt=Prompt(id="q17", question="?", answers=answers, gold=gold),
        retrieval=Retrieval(passages=(), scores=(), ranking=ranking),
        context_ids=(),
        responses=tuple(
            Response(
                text=text,
                token_ids=nothing.astype(np.int32),
                sampler_logprobs=nothing,
                mask=nothing.astype(np.bool_),
                finished=True,
            )
            for text in texts
        ),
        version=Version(0, 0),
    )
