"""`chat`: answers typed turns with a policy and shows what it read, in this process, without Ray."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import Field

from cluster.commands.opening import open_policy
from cluster.config import Settings
from cluster.flags import parse_flags, split
from cluster.inputs import check_retrieval
from rollout.config import Positive, Section
from rollout.convert import question_of
from rollout.policy.loading import DTYPES, load_policy
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler
from rollout.types import Group, Prompt, Version

USED_IN_CHAT = ("data.query", "data.cache", "policy.", "rollout.temperature", "rollout.top_p", "rollout.max_new_tokens", "seed")
SHOWN_OF_A_PASSAGE = 160


class ChatOptions(Section):
    checkpoint: Path = Field(description="a run folder, checkpoints/step-N, latest, best, or a plain model folder")
    passages: Path | None = Field(None, description="passages to retrieve from; default: those of the run")
    persona: str | None = Field(None, description="sentences about the one who answers, as in 'i own two cats. i work nights.'")
    history: Positive = Field(3, description="turns of the dialogue that the policy reads")
    questions: bool = Field(False, description="every line is a question by itself: no persona, no turns")
    sample: bool = Field(False, description="draw replies instead of giving the most probable one")


def chat(argv: Sequence[str]) -> None:
    """Answers what is typed, with the passages it read. /reset begins a new dialogue; /quit or the end of the input leaves."""
    options, values = split(ChatOptions, parse_flags("chat", chat.__doc__, [ChatOptions, Settings], argv, only=USED_IN_CHAT))
    opened = open_policy(options.checkpoint, values, passages=options.passages)
    settings = opened.settings
    check_retrieval(settings, [Prompt(id="typed", question="?", answers=())])
    corpus = Corpus.open(settings.data.passages, settings.data.cache) if settings.data.passages is not None else None
    retriever = Retriever(corpus, settings.data.query, settings.policy.n_context)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load_policy(opened.path, settings.policy, DTYPES[settings.policy.dtype], device)
    one_each = settings.rollout.model_copy(update={"group_size": 1})
    sampler = Sampler(policy, retriever, one_each, settings.seed)
    turns: list[str] = []
    for number, text in enumerate(typed()):
        if text == "/reset":
            turns = []
            continue
        turns.append(f"Q: {text}")
        question = text if options.questions else question_of(options.persona or "", turns, options.history)
        prompt = Prompt(id=f"typed-{number}", question=question, answers=())
        [group] = sampler.groups([prompt], "sample" if options.sample else "greedy", Version(0, 0))
        print(answer(group), flush=True)
        turns.append(f"R: {group.responses[0].text}")


def typed() -> Iterator[str]:
    """Lines until /quit or the end of the input; a person is shown a prompt."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  (gives `input` a history; Windows has none)
    while True:
        try:
            text = (input("> ") if sys.stdin.isatty() else input()).strip()
        except EOFError:
            return
        if text == "/quit":
            return
        if text:
            yield text


def answer(group: Group) -> str:
    """The reply, and beneath it what the policy read, best first."""
    lines = [group.responses[0].text or "(an empty reply)"]
    for passage, score in zip(group.retrieval.passages, group.retrieval.scores, strict=True):
        text = f"{passage.title}: {passage.text}" if passage.title else passage.text
        shown = text if len(text) <= SHOWN_OF_A_PASSAGE else f"{text[:SHOWN_OF_A_PASSAGE]}..."
        lines.append(f"    {score:6.2f}  {passage.id}  {shown}")
    return "\n".join(lines)
