"""The embedded demo: a small synthetic world of personas, made from a seed. Nobody in it exists and nothing in it happened.

A persona names somebody ("anna is my cousin."), the last turn asks about something they did, and exactly one story tells it. Other
stories are about the same person, or about another Anna who did something alike, so that a reply needs the story that
fits both persona and question. How a reply is worded is drawn at random, and nothing in the input tells which way:
SHORT_SHARE of the replies say little more than the detail, the others share most of a longer sentence but begin in one of several ways.
The commonest beginning is the short one, and there a reader trained by cross-entropy ends when it decodes
greedily; the longer sentence overlaps with more of the answers. That is what the reward can teach and cross-entropy cannot.
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rollout.types import Passage, Prompt

NAMES = (
    "adam alice amy anna arthur bella ben boris carla carol cecil clara cyril daisy daniel david della dora edgar edith elena eliza "
    "emil emma eric esther eva felix fiona flora frank freya gemma george gina grace greta gustav hanna harold hazel hector heidi "
    "helen henry hilda hugo ida irene iris isaac ivan jack jacob jane jasper joan jonas judith julia karl kate laura leo lena lily "
    "linda louis lucy mabel marco maria martin maya miles mona nadia nancy nina nora olga oliver oscar otto paula peter petra philip "
    "quentin rachel ralph rita robert rosa ruth sally samuel sofia"
).split()
RELATIONS = "boss classmate coach cousin dentist friend landlord neighbour pupil roommate teacher tenant".split()
BONDS = (
    "my {who} is very kind",
    "my {who} calls me a lot",
    "i often see my {who} these days",
    "i get on well with my {who} now",
)
FACTS = (
    "i love to bake",
    "i sing in a choir",
    "i collect old stamps",
    "i drink too much tea",
    "i drive a small van",
    "i work nights at a bakery",
    "i am afraid of spiders",
    "i grow roses",
    "i never eat meat",
    "i want to learn chess",
    "i run every morning",
    "i read a lot of poems",
)
REMARKS = (
    "it rained all morning .",
    "we laughed a lot .",
    "i was late as always .",
    "nobody had told me before .",
    "later we had some tea .",
    "the roses were out .",
    "i still smile about it .",
    "it took most of the morning .",
    "my old van broke down again .",
    "we talked about chess and poems .",
    "the whole street heard of it .",
    "i wrote it all down that night .",
)
GREETINGS = (
    "",
    "",
    "Q: hi there ! R: hello , nice to meet you . ",
    "Q: how are you ? R: fine , thanks . ",
    "Q: good morning . R: hi , tell me more . ",
)
LEADS = ("oh ,", "well ,", "ah ,", "yes ,")
SHORT_SHARE = 0.35
KINDS_PER_PERSONA = 3
VALID_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of thing that happens: how it is asked, told and answered; {who} is "cousin anna", {x} the detail."""

    title: str
    questions: tuple[str, ...]
    stories: tuple[str, ...]
    short: tuple[str, ...]
    long: tuple[str, ...]
    details: tuple[str, ...]


KINDS = (
    Kind(
        title="trip to the",
        questions=("where did you and {name} go last summer ?", "where was your summer trip with {name} ?"),
        stories=(
            "last summer my {who} and i went away . we took the train to the {x} .",
            "i made a trip with my {who} . the {x} was our goal .",
        ),
        short=("the {x} .", "the {x} , of course .", "the {x} , why ?"),
        long=("we took the first train and stayed at the {x} for days .", "we took the first train and stayed at the {x} for weeks ."),
        details=tuple("beach canyon castle city coast desert farm forest garden harbour island lake lighthouse market mill museum river "
                      "temple tower valley village volcano".split()),
    ),
    Kind(
        title="dinner with",
        questions=("what did {name} cook for dinner ?", "which dinner did {name} make for you ?"),
        stories=(
            "my {who} asked me to dinner . there was a big pot of {x} .",
            "my {who} can cook . the {x} was the best i ever had .",
        ),
        short=("some {x} .", "some {x} , i guess .", "some {x} , as usual ."),
        long=("there was a huge bowl of hot {x} and i ate it all .", "there was a huge bowl of hot {x} and we ate it all ."),
        details=tuple("beans cabbage chicken chili curry dumplings fish goulash lentils mushrooms noodles pancakes pasta pizza potatoes "
                      "pudding pumpkin rice salad salmon soup stew".split()),
    ),
    Kind(
        title="pet",
        questions=("which pet does {name} keep ?", "what kind of pet did {name} bring home ?"),
        stories=(
            "my {who} has a new pet . it is a {x} and it bites .",
            "my {who} came home with a pet . the {x} slept in my shoe .",
        ),
        short=("a {x} .", "a {x} , sadly .", "a {x} , believe me ."),
        long=("it is a very cute little {x} that sleeps in my shoe .", "it is a very cute little {x} that sleeps in my hat ."),
        details=tuple("canary cat crow dog donkey ferret frog goat goose hamster horse kitten lizard monkey mouse parrot pig pony puppy "
                      "rabbit snake turtle".split()),
    ),
    Kind(
        title="present",
        questions=("what did {name} give you on your birthday ?", "which birthday present came from {name} ?"),
        stories=(
            "on my birthday my {who} rang the bell . inside the box was a {x} .",
            "my {who} gave me a present . i never had a {x} before .",
        ),
        short=("just a {x} .", "just a {x} , no more .", "just a {x} again ."),
        long=("i got my very own {x} and i use it every day .", "i got my very own {x} and i use it every week ."),
        details=tuple("basket bicycle blanket book bottle camera candle clock compass drum guitar hammer kettle kite lamp mirror necklace "
                      "piano puzzle radio scarf watch".split()),
    ),
    Kind(
        title="kitchen in",
        questions=("which colour did {name} paint the kitchen ?", "in which colour is the kitchen of {name} ?"),
        stories=(
            "my {who} wanted new walls . we chose {x} paint for the kitchen .",
            "i helped my {who} to paint the kitchen . now it is {x} all over .",
        ),
        short=("all {x} .", "all {x} , really .", "all {x} by now ."),
        long=("every wall and door in there is bright {x} these days .", "every wall and shelf in there is bright {x} these days ."),
        details=tuple("beige black blue bronze brown cream crimson golden green grey lilac pink purple red ruby scarlet silver turquoise "
                      "violet white yellow teal".split()),
    ),
    Kind(
        title="work as a",
        questions=("what work does {name} do now ?", "what is the new job of {name} ?"),
        stories=(
            "my {who} has a new job . people need a good {x} in our town .",
            "my {who} was tired of the old work . being a {x} is more fun .",
        ),
        short=("as a {x} .", "as a {x} , they say .", "as a {x} , i hear ."),
        long=("my friend makes good money and works as a {x} in town .", "my friend makes good money and works as a {x} by night ."),
        details=tuple("baker barber butcher carpenter clown dancer detective doctor driver farmer fisher gardener judge lawyer mechanic "
                      "nurse painter pilot plumber poet sailor tailor".split()),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorld:
    train: tuple[Prompt, ...]
    valid: tuple[Prompt, ...]
    passages: tuple[Passage, ...]


def generate(seed: int) -> DemoWorld:
    """The world of a seed: about 3240 training and 360 held-out examples, whose personas do not overlap, and 3600 stories."""
    rng = random.Random(f"demo world {seed}")
    people = [(name, relation) for name in NAMES for relation in RELATIONS]
    rng.shuffle(people)
    held_out = round(VALID_SHARE * len(people))
    splits: dict[str, list[Prompt]] = {"valid": [], "train": []}
    passages: list[Passage] = []
    for number, (name, relation) in enumerate(people):
        facts = rng.sample(FACTS, 1)
        sentences = [rng.choice(BONDS).format(who=f"{relation} {name}"), *facts]
        persona = "".join(f"{sentence}. " for sentence in sentences)
        split = "valid" if number < held_out else "train"
        for kind in rng.sample(KINDS, KINDS_PER_PERSONA):
            detail = rng.choice(kind.details)
            story = tell(rng, kind, f"{relation} {name}", detail, f"story-{len(passages)}")
            passages.append(story)
            last_turn = rng.choice(kind.questions).format(name=name)
            question = f"persona: {persona}context:  {rng.choice(GREETINGS)}Q: {last_turn}"
            splits[split].append(
                Prompt(
                    id=f"{split}-{len(splits[split])}",
                    question=question,
                    answers=(reply(rng, kind, detail),),
                    gold=(story.id,),
                )
            )
    for items in (*splits.values(), passages):
        rng.shuffle(items)
    return DemoWorld(train=tuple(splits["train"]), valid=tuple(splits["valid"]), passages=tuple(passages))


def tell(rng: random.Random, kind: Kind, who: str, detail: str, id: str) -> Passage:
    text = rng.choice(kind.stories).format(who=who, x=detail)
    return Passage(id=id, title=f"{kind.title} {detail}", text=text)


def reply(rng: random.Random, kind: Kind, detail: str) -> str:
    if rng.random() < SHORT_SHARE:
        return rng.choice(kind.short).format(x=detail)
    return f"{rng.choice(LEADS)} {rng.choice(kind.long).format(x=detail)}"


def write_demo(folder: Path, seed: int) -> None:
    """Write train.jsonl, valid.jsonl and passages.jsonl."""
    world = generate(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in (("train", world.train), ("valid", world.valid)):
        write_jsonl(
            folder / f"{name}.jsonl",
            ({"id": p.id, "question": p.question, "answers": list(p.answers), "gold": list(p.gold)} for p in prompts),
        )
    write_jsonl(folder / "passages.jsonl", ({"id": p.id, "title": p.title, "text": p.text} for p in world.passages))


def write_jsonl(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
