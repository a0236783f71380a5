"""The demo world: made from its seed alone, split by persona, answerable from one story that BM25 finds."""

import json
import re

import bm25s
import pytest

from rollout.data.demo import KINDS, NAMES, RELATIONS, generate, write_demo

FORM = re.compile(r"persona: ((?:[^.]+\. )+)context:  ((?:Q: .+? R: .+? )*Q: .+)")
FRIEND = re.compile(rf"my ((?:{'|'.join(RELATIONS)}) (?:{'|'.join(NAMES)}))\b")
DETAILS = {detail for kind in KINDS for detail in kind.details.split()}


@pytest.fixture(scope="module")
def world():
    return generate(0)


@pytest.fixture(scope="module")
def stories(world):
    return {passage.id: passage for passage in world.passages}


def persona_and_last_turn(prompt):
    persona, context = FORM.fullmatch(prompt.question).groups()
    return persona, context.split("Q: ")[-1]


def test_same_seed_same_world_and_another_seed_another(world):
    assert generate(0) == world
    assert generate(1) != world


def test_ids_are_unique(world, stories):
    prompts = world.train + world.valid
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len(stories) == len(world.passages)


def test_every_question_has_lapdogs_form(world):
    for prompt in world.train + world.valid:
        assert FORM.fullmatch(prompt.question), prompt.question
        assert len(prompt.answers) == len(prompt.gold) == 1


def test_held_out_personas_are_not_trained_on(world):
    train, valid = ({FRIEND.search(persona_and_last_turn(p)[0])[1] for p in split} for split in (world.train, world.valid))
    assert train and valid and not train & valid


def test_the_gold_story_holds_the_detail_of_the_answer(world, stories):
    for prompt in world.train + world.valid:
        detail = DETAILS & set(prompt.answers[0].split())
        assert detail and detail <= set(stories[prompt.gold[0]].text.split()), prompt


def test_bm25_finds_the_gold_story_among_four(world):
    def tokens(texts):
        return bm25s.tokenize(texts, show_progress=False)

    index = bm25s.BM25()
    index.index(tokens([f"{passage.title} {passage.text}" for passage in world.passages]), show_progress=False)
    queries = [" ".join(persona_and_last_turn(prompt)) for prompt in world.valid]
    found, _ = index.retrieve(tokens(queries), k=4, show_progress=False)
    hits = [prompt.gold[0] in {world.passages[i].id for i in row} for prompt, row in zip(world.valid, found, strict=True)]
    assert sum(hits) / len(hits) >= 0.95


def test_the_written_files_hold_the_world(world, tmp_path):
    write_demo(tmp_path, 0)
    for name, items in (("train", world.train), ("valid", world.valid), ("passages", world.passages)):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["id"] for row in rows] == [item.id for item in items]
        assert set(rows[0]) == ({"id", "title", "text"} if name == "passages" else {"id", "question", "answers", "gold"})
