import json

import pytest

from rollout.data.convert.converter import convert_files
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
def accounts():
    """Of the conversions of a test."""
    return []


@pytest.fixture
def converted(tmp_path, accounts):
    def convert(text, history=None):
        source, target = tmp_path / "source.txt", tmp_path / "target.jsonl"
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
        account = convert_files([source], target, "parlai", history)
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
        assert account.written == len(rows) and account.formats == ["parlai"]
        accounts.append(account)
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
        ("1 \t\n", 1, "'' is no turn"),
        ("1 \t\t1.0\n", 1, "is no turn"),
        (b"1 hi\tho\n2 caf\xe9\tyes\n", 2, "byte 5 is not UTF-8"),
    ],
)
def test_bad_lines_are_named(converted, tmp_path, text, line, shown):
    with pytest.raises(DataError) as caught:
        converted(text)
    assert str(caught.value).startswith(f"{tmp_path / 'source.txt'}:{line}: ") and shown in str(caught.value)
    assert not (tmp_path / "target.jsonl").exists()


@pytest.mark.parametrize("text", ["1 your persona: i bake.\n", "\n1 your persona: i bake.\n\n"])
def test_a_file_without_turns_is_refused(converted, text):
    with pytest.raises(DataError, match="holds no dialogue turn"):
        converted(text)


def test_what_is_not_kept_is_counted(converted, accounts):
    converted(PARLAI)
    assert list(accounts[0].lines()) == ["not kept: partner's persona (1), candidates (1)"]


@pytest.mark.parametrize("silence", ["__SILENCE__", "__null__"])
def test_an_opening_in_silence_has_an_empty_context(converted, silence):
    first, second = converted(f"1 your persona: i drive a tram.\n2 {silence}\thello .\n3 hi !\tbye .\n")
    assert first == {"id": "0-0", "question": "persona: i drive a tram. context:", "answers": ["hello ."]}
    assert second["question"] == "persona: i drive a tram. context:  R: hello . Q: hi !" and second["id"] == "0-1"
    assert build_query(first["question"], "persona+last_turn") == "i drive a tram."


def test_a_turn_may_lack_what_the_partner_says_or_what_the_agent_replies(converted, accounts):
    first, last = converted("1 \thello .\n2 hi !\t\n3 well ?\tbye .\n")
    assert (first["question"], first["answers"]) == ("persona: context:", ["hello ."])
    assert last["question"] == "persona: context:  R: hello . Q: hi ! Q: well ?" and last["answers"] == ["bye ."]
    assert accounts[0].noted["left out, without an answer"][0] == 1


def test_labels_are_several_answers_of_which_the_first_is_history(converted):
    first, second = converted("1 shall we go ?\tyes|yep | sure|yes\n2 now ?\tat once\\nif you like\n")
    assert first["answers"] == ["yes", "yep", "sure"]
    assert second["question"] == "persona: context:  Q: shall we go ? R: yes Q: now ?"
    assert second["answers"] == ["at once\nif you like"]


def test_a_turn_that_is_met_with_silence_is_told_and_stays_in_the_history(converted, accounts):
    [only] = converted("1 hello ?\t__null__\n2 are you there ?\tyes .\n")
    assert only == {"id": "0-1", "question": "persona: context:  Q: hello ? Q: are you there ?", "answers": ["yes ."]}
    assert accounts[0].noted["left out, without an answer"][0] == 1


NEW_FORM = (
    "text:your persona: i keep bees.\\npartner's persona: i sell jam.\\nhello\tlabels:hi there|hey\tlabel_candidates:no|hey\n"
    "\n"
    "text:a__PIPE__b ?\tlabels:left\\tright__PIPE__none\treward:1.0\tepisode_done:True\n"
    "text:__SILENCE__\teval_labels:good day\tepisode_done:False\n"
    "id:convai2\ttext:and you ?\n"
    "text:well ?\tlabels:fine\n"
)


def test_parlais_newer_form_says_the_same(converted, accounts):
    assert converted(NEW_FORM) == [
        {"id": "0-0", "question": "persona: i keep bees. context:  Q: hello", "answers": ["hi there", "hey"]},
        {
            "id": "0-1",
            "question": "persona: i keep bees. context:  Q: hello R: hi there Q: a|b ?",
            "answers": ["left\tright|none"],
        },
        {"id": "1-0", "question": "persona: context:", "answers": ["good day"]},
        {"id": "1-2", "question": "persona: context:  R: good day Q: and you ? Q: well ?", "answers": ["fine"]},
    ]
    [left_out, not_kept] = accounts[0].lines()
    assert left_out.startswith("left out, without an answer: 1, the first ") and left_out.endswith("source.txt:5")
    assert not_kept == "not kept: label_candidates (1), partner's persona (1), reward (1)"


def test_a_field_without_a_name_is_named(converted):
    with pytest.raises(DataError, match="source.txt:1: 'there' is no field; write name:value, and a tab in a value as"):
        converted("text:hello\tthere\tlabels:hi\n")
