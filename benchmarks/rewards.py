"""Scoring groups of 8 with F1, ROUGE-L and BLEU: the libraries' own objects, called pair by pair / our Scorer.

    python -m benchmarks.rewards [--groups 200] [--repetitions 7]

Two kinds of groups: replies of the demo as a policy after stage 1 words them, among which many are equal, and gold replies of
eight different prompts, all distinct. The last line is JSON; `speedup` is that of the first kind.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from reward.config import RewardSettings
from reward.metrics import TextMetrics
from reward.scorer import Scorer
from rollout.data import demo
from rollout.text import ENGLISH
from rollout.types import Group, Prompt, Response, Retrieval, Version

SIZE = 8
Parts = list[dict[str, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    result: dict[str, object] = {"bench": "rewards"}
    print(f"{'groups':>12} {'distinct':>9} {'libraries':>12} {'ours':>12} {'speedup':>8}")
    for name, groups in (("sampled", sampled(options.groups)), ("distinct", distinct(options.groups))):
        theirs, ours = by_libraries(groups), by_scorer(groups)
        equal = all(np.array_equal(a[part], b[part]) for a, b in zip(theirs, ours, strict=True) for part in a)
        seconds = [(seconds_of(by_libraries, groups), seconds_of(by_scorer, groups)) for _ in range(options.repetitions)]
        library, own = (statistics.median(column) for column in zip(*seconds, strict=True))
        share = statistics.mean(len({r.text for r in group.responses}) for group in groups)
        print(f"{name:>12} {share:9.1f} {library:10.3f} s {own:10.3f} s {library / own:7.2f}x")
        key = "speedup" if name == "sampled" else "speedup_distinct"
        result |= {key: round(library / own, 3), "equal": bool(result.get("equal", True)) and equal}
    print(json.dumps(result))


def by_libraries(groups: Sequence[Group]) -> Parts:
    """What a plain loop over responses does with the libraries' public objects."""
    rouge, sentence_bleu, metrics = RougeScorer(["rougeL"]), BLEU(effective_order=True), TextMetrics(ENGLISH)
    parts = []
    for group in groups:
        [answer] = group.prompt.answers
        rows = [
            (
                metrics.f1(response.text, answer),
                rouge.score(answer, response.text)["rougeL"].fmeasure,
                min(1.0, sentence_bleu.sentence_score(response.text, [answer]).score / 100),
            )
            for response in group.responses
        ]
        parts.append(dict(zip(("f1", "rougeL", "bleu"), np.array(rows, np.float32).T, strict=True)))
    return parts


def by_scorer(groups: Sequence[Group]) -> Parts:
    scorer = Scorer(RewardSettings())
    return [scorer.score(group).reward_parts for group in groups]


def seconds_of(score: Callable[[Sequence[Group]], Parts], groups: Sequence[Group]) -> float:
    start = time.perf_counter()
    score(groups)
    return time.perf_counter() - start


def sampled(count: int) -> list[Group]:
    """Groups as a policy that has learnt the demo's wordings draws them."""
    rng = random.Random(0)
    groups = []
    for number in range(count):
        kind = rng.choice(demo.KINDS)
        chances = demo.wordings(kind, rng.choice(kind.details.split()))
        answer, *texts = rng.choices(list(chances), list(chances.values()), k=1 + SIZE)
        groups.append(group_of(str(number), answer, texts))
    return groups


def distinct(count: int) -> list[Group]:
    """Groups whose responses are gold replies to other prompts."""
    rng = random.Random(0)
    answers = sorted({prompt.answers[0] for prompt in demo.generate(0).train})
    drawn = [rng.sample(answers, 1 + SIZE) for _ in range(count)]
    return [group_of(str(number), answer, texts) for number, (answer, *texts) in enumerate(drawn)]


def group_of(name: str, answer: str, texts: Sequence[str]) -> Group:
    nothing = np.zeros(0, np.float32)
    return Group(
        prompt=Prompt(id=name, question="?", answers=(answer,)),
        retrieval=Retrieval(passages=(), scores=()),
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


if __name__ == "__main__":
    main()
