"""`chat`: answers typed turns with a policy and shows what it read, in this process, without Ray."""

import contextlib
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from cluster.commands.policy_source import CHECKPOINT, ITS_OWN, PolicySource, flags_of_a_policy, open_policy
from cluster.output import print_err, print_out
from cluster.settings.flags import Flag
from cluster.settings.tree import read_by
from cluster.settings.values import split
from cluster.training.inputs import with_language
from rollout.config import Positive, Section
from rollout.data.convert.parlai import question_of
from rollout.data.file_settings import Files
from rollout.data.files import shown
from rollout.errors import SettingsError
from rollout.policy.loading import DTYPES, load_policy
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.open import open_retriever
from rollout.retrieval.retriever import Retriever
from rollout.retrieval.url_source import UrlSource
from rollout.sampler import Sampler
from rollout.setting_tags import tagged
from rollout.types import Group, Prompt, Version

SEED = Flag("seed", f"seed of the replies that --sample draws [{ITS_OWN}]")
SHOWN_OF_A_PASSAGE = 160
CURSOR_MOVES = ("Cc", "Zl", "Zp")  # control characters and line ends, by Unicode's categories
HELP = "/reset begins a new dialogue; /quit or Ctrl-D leaves"


@dataclass(frozen=True, slots=True)
class OfDialogue:
    """Tag of an option that --questions leaves nothing to do."""


class ChatOptions(Section):
    checkpoint: Path = Field(description=CHECKPOINT)
    passages: Files | None = Field(None, description="passages to retrieve from; default: those of the run")
    persona: Annotated[str | None, OfDialogue()] = Field(
        None, description="sentences about the one who answers, as in 'i own two cats. i work nights.'"
    )
    history: Annotated[Positive, OfDialogue()] = Field(3, description="turns of the dialogue that the policy reads")
    questions: bool = Field(False, description="every line is a question by itself: no persona, no turns")
    sample: bool = Field(False, description="draw replies instead of giving the most probable one")


def chat(argv: Sequence[str]) -> None:
    """Answers what is typed, with the passages it read. /reset begins a new dialogue; /quit or the end of the input leaves."""
    given = flags_of_a_policy("chat", chat.__doc__, ChatOptions, argv, [SEED])
    options, values = split(ChatOptions, given)
    if not options.sample and (idle := next((name for name in (*read_by("chat --sample"), SEED.name) if name in values), None)):
        raise SettingsError(f"{idle}: changes nothing about the most probable reply; add --sample, or leave it out")
    if options.questions and (idle := next((name for name, _ in tagged(ChatOptions, OfDialogue) if name in given), None)):
        raise SettingsError(f"{idle}: is not read with --questions; leave one of them out")
    sampler = _sampler(open_policy(options.checkpoint, values, passages=options.passages))
    if sys.stdin.isatty():
        print_err(HELP)
    turns: list[str] = []
    for number, text in enumerate(typed()):
        if text == "/reset":
            turns = []
            continue
        if text.startswith("/"):
            print_err(HELP)
            continue
        turns.append(f"Q: {text}")
        question = text if options.questions else question_of(options.persona or "", turns, options.history)
        prompt = Prompt(id=f"typed-{number}", question=question, answers=())
        [group] = sampler.sample([prompt], "sample" if options.sample else "greedy", Version(0, 0)).groups
        print_out(answer(group))
        turns.append(f"R: {group.responses[0].text}")


def _sampler(opened: PolicySource) -> Sampler:
    """One response a prompt."""
    settings = opened.settings
    n_context, files = settings.policy.n_context, settings.data.passages
    if n_context and files is None and settings.retriever.url is None:
        raise SettingsError(f"passages: none are known, the policy reads {n_context}; give --passages or --policy.n_context 0")
    if n_context and files is not None:
        corpus = Corpus.open(files, settings.data.cache)
        for text in corpus.told:
            print_err(text)
        if len(corpus) < n_context:
            n_context = len(corpus)
            print_err(f"{shown(files)}: holds fewer passages ({n_context}) than the policy reads; no more can be found")
        settings = with_language(settings, [])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load_policy(opened.path, settings.policy, DTYPES[settings.policy.dtype], device)
    asked = (settings.data, n_context, settings.retriever, policy.tokenizer, device)
    retriever = open_retriever(*asked) if n_context else Retriever(0)
    if isinstance(retriever.source, UrlSource):
        retriever.source.check()
    one_each = settings.rollout.with_values(group_size=1)
    return Sampler(policy, retriever, one_each, settings.seed, settings.data.cut_prompts_at)


def typed() -> Iterator[str]:
    """Lines until /quit or the end of the input; a person is shown a prompt."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # not every Python has it
            import readline  # noqa: F401  (gives `input` a history)
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
    lines = ["\n".join(map(_one_line, group.responses[0].text.splitlines())) or "(an empty reply)"]
    retrieval = group.retrieval
    for i, (passage, score) in enumerate(zip(retrieval.passages, retrieval.scores, strict=True)):
        own = ", ".join(f"{name} {part.scores[i]:.2f}" for name, part in retrieval.parts.items())
        parts = f" ({own})" if own else ""
        text = _one_line(f"{passage.title}: {passage.text}" if passage.title else passage.text)
        shown = text if len(text) <= SHOWN_OF_A_PASSAGE else f"{text[:SHOWN_OF_A_PASSAGE]}..."
        lines.append(f"    {score:6.2f}{parts}  {_one_line(passage.id)}  {shown}")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return " ".join("".join(" " if unicodedata.category(c) in CURSOR_MOVES else c for c in text).split())
