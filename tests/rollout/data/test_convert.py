import json

import pytest

from rollout.data.convert import convert_parlai
from rollout.data.dataset import read_prompts
from rollout.errors import DataError
from rollout.retrieval.query import build_query

PARLAI = (
    "1 your persona: i bake.\n"
    "2 your persona: i like to run .\n"
    "3 partner's persona: i never sleep.\n"
    "4 hello ?\thi there .\t\thi there .|no\n"
    "5 what is new ?\ti ran .\n"
    "6 and then ?\ti slept .\n"
    "1 your persona: i sing.\n"
    "2 who are you ?\ta singer .\n"
)


@pytest.fixture
def converted(tmp_path):
    def convert(text, history=None):
        source, target = tmp_path / "source.txt", tmp_path / "target.jsonl"
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
        count = convert_parlai(source, target, history)
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
        assert count == len(rows)
        return rows

    return convert


def test_examples_have_lapdogs_form_with_both_speakers_turns(converted):
    assert converted(PARLAI) == [
        {
            "id": "0-0",
            "question": "persona: i bake. i like to run. context:  Q: hello ?",
            "answers": ["hi there ."],
        },
        {
            "id": "0-1",
            "question": "persona: i bake. i like to run. context:  Q: hello ? R: hi there . Q: what is new ?",
            "answers": ["i ran ."],
        },
        {
            "id": "0-2",
            "question": "persona: i bake. i like to run. context:  "
            "Q: hello ? R: hi there . Q: what is new ? R: i ran . Q: and then ?",
            "answers": ["i slept ."],
        },
        {"id": "1-0", "question": "persona: i sing. context:  Q: who are you ?", "answers": ["a singer ."]},
    ]


@pytest.mark.parametrize(
    ("history", "context"),
    [
        (1, "Q: and then ?"),
        (2, "R: i ran . Q: and then ?"),
        (3, "Q: what is new ? R: i ran . Q: and then ?"),
        (99, "Q: hello ? R: hi there . Q: what is new ? R: i ran . Q: and then ?"),
    ],
)
def test_history_keeps_the_last_turns(converted, history, context):
    assert converted(PARLAI, history)[2]["question"] == f"persona: i bake. i like to run. context:  {context}"


def test_a_dialogue_without_persona_has_an_empty_one(converted):
    assert converted("1 hi\tho\n")[0]["question"] == "persona: context:  Q: hi"


def test_letters_stay_as_they_are(converted, tmp_path):
    assert converted("1 où ?\tà l’école .\n")[0]["answers"] == ["à l’école ."]
    assert "école" in (tmp_path / "target.jsonl").read_text(encoding="utf-8")


def test_blank_lines_and_windows_line_ends_do_not_matter(converted):
    expected = converted(PARLAI)
    assert converted(PARLAI.replace("\n", "\r\n\r\n")) == expected


def test_the_result_is_read_and_searched_as_it_stands(converted, tmp_path):
    converted(PARLAI, 3)
    prompts = read_prompts(tmp_path / "target.jsonl")
    assert [p.id for p in prompts] == ["0-0", "0-1", "0-2", "1-0"]
    assert build_query(prompts[2].question, "persona+last_turn") == "i bake. i like to run. and then ?"


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("1 hi\tho\nhello\tyou\n", 2, "begins with no number"),
        ("1 hi\tho\n\n2 alone\n", 3, "'alone' is no turn"),
        ("1 hi\t\n", 1, "is no turn"),
        ("1 \tho\n", 1, "is no turn"),
        (b"1 hi\tho\n2 caf\xe9\tyes\n", 2, "byte 5 is not UTF-8"),
    ],
)
def test_bad_lines_are_named(converted, tmp_path, text, line, shown):
    with pytest.raises(DataError) as caught:
        converted(text)
    assert str(caught.value).startswith(f"{tmp_path / 'source.txt'}:{line}: ") and shown in str(caught.value)
    assert not (tmp_path / "target.jsonl").exists()


@pytest.mark.parametrize("text", ["", "\n", "1 your persona: i bake.\n"])
def test_a_file_without_turns_is_refused(converted, text):
    with pytest.raises(DataError, match="holds no dialogue turn"):
        converted(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        convert_parlai(tmp_path / "no.txt", tmp_path / "out.jsonl", None)
