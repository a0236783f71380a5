"""The embedded demo: a small synthetic world made from a seed. Nobody in it exists and nothing in it happened.

A persona names a friend, the last turn asks about one thing that this friend did, and one story tells it; the friend's
other stories are retrieved beside it. So a reply needs a detail that only the right story holds. How a reply is worded is
drawn at random, and nothing in the input tells which way: SHORT_SHARE of the replies say little more than the detail, the
others are longer and share most of their words. Cross-entropy ends at the commonest wording, which is a short one; the
wordings that overlap with most of the others earn more reward. That gap is what GRPO can close.
"""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.types import Passage, Prompt

# what trains well in a few minutes on two cores; a setting that the user gives wins
SETTINGS: dict[str, object] = {
    "policy.prompt_template": "{question}",
    "policy.passage_template": "{query} {title} {text}",
    "supervised.steps": 600,
    "supervised.lr": 1e-3,
    "rollout.max_new_tokens": 16,
    "learner.steps": 80,
    "learner.lr": 3e-4,
    "eval_every": 150,
}
NAMES = (
    "adam amy anna arthur ben carla cecil clara cyril daniel david della edgar elena emil emma eric eva felix fiona frank "
    "gemma gina greta hanna hazel heidi henry hugo irene isaac jack jane joan judith karl laura lena linda lucy marco maria "
    "martin miles nadia nina olga oscar paula petra quentin ralph robert rosa ruth samuel"
).split()
RELATIONS = "boss coach cousin dentist friend landlord neighbour pupil roommate teacher".split()
BONDS = ("my {who} is kind", "i often see my {who}", "i get on with my {who}")
FACTS = (
    "i love to bake",
    "i sing in a choir",
    "i collect old stamps",
    "i drink too much tea",
    "i am afraid of spiders",
    "i grow roses",
    "i never eat meat",
    "i run every morning",
)
LEADS = ("oh", "well", "yes", "sure")
SHORT_SHARE = 0.3
STORIES_PER_PERSONA = 4
QUESTIONS_PER_PERSONA = 8
PERSONAS = 480
VALID_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of thing that happens, as asked, told and answered; {who} is "cousin anna", {x} the detail."""

    title: str
    questions: tuple[str, str]
    story: str
    short: str
    long: str
    details: str


KINDS = (
    Kind(
        title="{x} trip",
        questions=("where did your {who} go ?", "which trip did your {who} make ?"),
        story="my {who} went to the {x} .",
        short="the {x} .",
        long="they took the train to the {x} for days .",
        details="beach castle coast farm garden island lighthouse mill river tower lake forest harbour museum",
    ),
    Kind(
        title="{x} dinner",
        questions=("what did your {who} cook ?", "which dinner did your {who} make ?"),
        story="my {who} cooked {x} for dinner .",
        short="some {x} .",
        long="there was a huge bowl of {x} for us .",
        details="beans chicken curry fish lentils noodles pasta potatoes pumpkin salad soup rice mushrooms pizza",
    ),
    Kind(
        title="{x} pet",
        questions=("which pet does your {who} keep ?", "what animal has your {who} got ?"),
        story="my {who} keeps a {x} .",
        short="a {x} .",
        long="it is a very cute little {x} with spots .",
        details="canary crow donkey frog goose horse lizard mouse pig puppy kitten parrot rabbit turtle",
    ),
    Kind(
        title="{x} present",
        questions=("what did your {who} give you ?", "which present came from your {who} ?"),
        story="my {who} gave me a {x} .",
        short="just a {x} .",
        long="i got my very own {x} in a box .",
        details="basket blanket bottle candle compass guitar kettle lamp necklace puzzle drum kite mirror clock",
    ),
    Kind(
        title="{x} kitchen",
        questions=("which colour has the kitchen of your {who} ?", "how did your {who} paint the kitchen ?"),
        story="my {who} painted the kitchen {x} .",
        short="all {x} .",
        long="every wall in there is bright {x} this year .",
        details="beige blue brown crimson green lilac purple ruby silver violet golden grey orange pink",
    ),
    Kind(
        title="{x} work",
        questions=("what job does your {who} do ?", "which work has your {who} got ?"),
        story="my {who} works as a {x} .",
        short="as a {x} .",
        long="they make good money as a {x} in town .",
        details="baker butcher clown detective driver fisher judge mechanic painter plumber barber nurse tailor sailor",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorld:
    train: tuple[Prompt, ...]
    valid: tuple[Prompt, ...]
    passages: tuple[Passage, ...]


def generate(seed: int) -> DemoWorld:
    """3456 training and 384 held-out examples, whose personas do not overlap, and 1920 stories."""
    rng = random.Random(f"demo world {seed}")
    friends = rng.sample([f"{relation} {name}" for relation in RELATIONS for name in NAMES], PERSONAS)
    held_out = round(VALID_SHARE * PERSONAS)
    train: list[Prompt] = []
    valid: list[Prompt] = []
    passages: list[Passage] = []
    for number, who in enumerate(friends):
        name, split = ("valid", valid) if number < held_out else ("train", train)
        persona = f"{rng.choice(BONDS).format(who=who)}. {rng.choice(FACTS)}. "
        kinds = rng.sample(KINDS, STORIES_PER_PERSONA)
        told = [(kind, rng.choice(kind.details.split()), f"story-{len(passages) + i}") for i, kind in enumerate(kinds)]
        passages += [_story(kind, who, detail, id) for kind, detail, id in told]
        for turn in range(QUESTIONS_PER_PERSONA):
            kind, detail, story = told[turn % len(told)]
            asked = rng.choice(kind.questions).format(who=who)
            question = f"persona: {persona}context:  Q: {asked}"
            answer = _reply(rng, kind, detail)
            split.append(Prompt(id=f"{name}-{len(split)}", question=question, answers=(answer,), gold=(story,)))
    rng.shuffle(passages)
    return DemoWorld(train=tuple(train), valid=tuple(valid), passages=tuple(passages))


def wordings(kind: Kind, detail: str) -> dict[str, float]:
    """Every reply that tells the detail, with how often it is the one that is given."""
    long = {_long(lead, kind, detail): (1 - SHORT_SHARE) / len(LEADS) for lead in LEADS}
    return {kind.short.format(x=detail): SHORT_SHARE} | long


def write_demo(folder: Path, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and passages.jsonl into an existing folder."""
    world = generate(seed)
    for name, prompts in (("train", world.train), ("valid", world.valid)):
        rows = ({"id": p.id, "question": p.question, "answers": p.answers, "gold": p.gold} for p in prompts)
        _write_jsonl(folder / f"{name}.jsonl", rows)
    _write_jsonl(folder / "passages.jsonl", ({"id": p.id, "title": p.title, "text": p.text} for p in world.passages))


def _story(kind: Kind, who: str, detail: str, id: str) -> Passage:
    return Passage(id=id, title=kind.title.format(x=detail), text=kind.story.format(who=who, x=detail))


def _reply(rng: random.Random, kind: Kind, detail: str) -> str:
    if rng.random() < SHORT_SHARE:
        return kind.short.format(x=detail)
    return _long(rng.choice(LEADS), kind, detail)


def _long(lead: str, kind: Kind, detail: str) -> str:
    return f"{lead} {kind.long.format(x=detail)}"


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
