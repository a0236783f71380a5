"""Runs for reports, with texts and figures of a test's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from learner.samples import write_samples
from rollout.types import Group, Passage, Prompt, Response, Retrieval, Version

EVIL = '</script><script>window.stolen = 1</script><img src=x onerror="window.stolen = 2"> <b>bold</b> &lt;i&gt; \u2028'


def log_group(
    run: Path,
    step: int,
    texts: tuple[str, ...],
    rewards: tuple[float, ...],
    id: str = "evil",
    title: str = "",
    incarnation: int = 0,
) -> None:
    """A sample log of one group whose prompt, passage and responses are given texts."""
    group = Group(
        prompt=Prompt(id=id, question=f"what {texts[0]}", answers=("the Big, red dog",), gold=("p1",)),
        retrieval=Retrieval(passages=(Passage(id="p1", title=title, text=texts[0]),), scores=(1.5,)),
        context_ids=(),
        responses=tuple(
            Response(
                text=text,
                token_ids=np.zeros(3, np.int32),
                sampler_logprobs=np.zeros(3, np.float32),
                mask=np.ones(3, np.bool_),
                finished=i == 0,
            )
            for i, text in enumerate(texts)
        ),
        version=Version(incarnation, step),
        rewards=np.array(rewards, np.float32),
        reward_parts={"f1": np.array(rewards, np.float32)},
    )
    shutil.rmtree(run / "samples", ignore_errors=True)
    write_samples(run / "samples" / f"step-{step}.parquet", [group], [[reward - 1 for reward in rewards]])


def write_rows(file: Path, lines: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
