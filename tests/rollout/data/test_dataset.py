import json
import logging
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.data.dataset import PromptOrder, read_prompts
from rollout.errors import DataError
from rollout.types import Passage, Prompt

GOOD = {"question": "who ?", "answers": ["me", "i do"]}
FULL = {
    "id": "q17",
    "question": "where ?",
    "answers": ["home"],
    "passages": [{"id": "p1", "title": "t", "text": "at home"}],
    "gold": ["p1"],
    "split": "train",
}


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def problem(path):
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def prompts_named(*ids):
    return [Prompt(id=id, question="?", answers=("!",)) for id in ids]


def test_jsonl_and_parquet_read_alike(tmp_path):
    rows = [FULL, GOOD]
    expected = [
        Prompt(
            id="q17",
            question="where ?",
            answers=("home",),
            passages=(Passage(id="p1", title="t", text="at home"),),
            gold=("p1",),
        ),
        Prompt(id="line-2", question="who ?", answers=("me", "i do")),
    ]
    columns = list(FULL)  # parquet has every column in every row, with nulls where a row says nothing
    filled = [{key: row.get(key) for key in columns} for row in rows]
    assert read_prompts(jsonl(tmp_path / "a.jsonl", *rows)) == expected
    assert read_prompts(parquet(tmp_path / "a.parquet", *filled)) == expected


def test_null_is_absent_in_both_formats(tmp_path):
    row = {**GOOD, "id": None, "passages": None, "gold": None}
    from_parquet = read_prompts(parquet(tmp_path / "a.parquet", row, {**FULL, "split": None}))
    assert read_prompts(jsonl(tmp_path / "a.jsonl", row, FULL)) == from_parquet


def test_a_passage_without_title_has_an_empty_one_in_both_formats(tmp_path):
    row = {**GOOD, "passages": [{"id": "a", "title": "t", "text": "x"}, {"id": "b", "text": "y"}]}
    from_jsonl = read_prompts(jsonl(tmp_path / "a.jsonl", row))
    assert [p.title for p in from_jsonl[0].passages] == ["t", ""]
    assert read_prompts(parquet(tmp_path / "a.parquet", row)) == from_jsonl


def test_other_columns_are_kept_where_they_are_asked_for_alike_in_both_formats(tmp_path):
    rows = [{**GOOD, "limit": 3, "tags": ["a", None], "by": {"name": "Ünï", "age": None}}, {**GOOD, "score": 0.1}]
    columns = dict.fromkeys(key for row in rows for key in row)
    filled = [{key: row.get(key) for key in columns} for row in rows]
    for path in (jsonl(tmp_path / "a.jsonl", *rows), parquet(tmp_path / "a.parquet", *filled)):
        first, second = read_prompts(path, keep_extra=True)
        assert first.extra == {"limit": 3, "tags": ["a", None], "by": {"name": "Ünï", "age": None}}
        assert second.extra == {"score": 0.1}
        assert [prompt.extra for prompt in read_prompts(path)] == [{}, {}]
        assert read_prompts(path) == [replace(prompt, extra={}) for prompt in (first, second)]


def test_what_json_lacks_becomes_text(tmp_path):
    nanoseconds = pa.array([1], pa.timestamp("ns"))
    row = {**GOOD, "at": datetime(2024, 1, 2, 3, 4, 5), "price": Decimal("1.50"), "nested": {"on": datetime(2024, 1, 2)}}
    table = pa.Table.from_pylist([{**row, "bytes": b"\xff\x00"}]).append_column("ns", nanoseconds)
    pq.write_table(table, tmp_path / "a.parquet")
    (prompt,) = read_prompts(tmp_path / "a.parquet", keep_extra=True)
    assert prompt.extra == {
        "at": "2024-01-02 03:04:05.000000",
        "price": "1.50",
        "nested": {"on": "2024-01-02 00:00:00"},
        "bytes": "/wA=",
        "ns": "1970-01-01 00:00:00.000000001",
    }


def test_columns_that_are_not_kept_are_not_read(tmp_path):
    table = pa.Table.from_pylist([GOOD]).append_column("at", pa.array([1], pa.timestamp("ns")))  # Python has no such time
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_prompts(tmp_path / "a.parquet") == [Prompt(id="line-1", question="who ?", answers=("me", "i do"))]


def test_extra_columns_leave_repr_and_hash_of_a_prompt_alone():
    plain = Prompt(id="1", question="?", answers=("!",))
    full = replace(plain, extra={"tags": ["a"]})
    assert repr(full) == repr(plain) and hash(full) == hash(plain) and full != plain


def test_ids_default_to_the_line_and_blank_lines_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n  \n{json.dumps(GOOD)}", encoding="utf-8")
    assert [p.id for p in read_prompts(path)] == ["line-1", "line-4"]


def test_optional_keys_default_to_nothing(tmp_path):
    prompt = read_prompts(jsonl(tmp_path / "a.jsonl", GOOD))[0]
    assert (prompt.passages, prompt.gold, prompt.epoch) == (None, (), 0)
    supplied = read_prompts(jsonl(tmp_path / "b.jsonl", {**GOOD, "passages": []}))[0]
    assert supplied.passages == ()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"question": "x", ', "is not JSON"),
        (b"hello", "is not JSON"),
        (b"[1, 2]", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b'{"question": "x"}', "lacks the key 'answers'"),
        (b'{"answers": ["x"]}', "lacks the key 'question'"),
        (b'{"question": 3, "answers": ["x"]}', "'question' is 3"),
        (b'{"question": "x", "answers": "y"}', "'answers' is 'y'"),
        (b'{"question": "x", "answers": ["y", 4]}', "'answers.1' is 4"),
        (b'{"question": "x", "answers": ["y"], "id": 17.5}', "'id' is 17.5"),
        (b'{"question": "x", "answers": []}', "'answers' is empty"),
        (b'{"question": "x", "answers": ["y", " "]}', "'answers.1' is empty"),
        (b'{"question": "\\t", "answers": ["y"]}', "'question' is empty"),
        (b'{"question": "x", "answers": ["y"], "id": "one"}', "'one' stands on line 1 already"),
        (b'{"question": "caf\xe9", "answers": ["y"]}', "byte 17 is not UTF-8"),
        (b'{"question": "x", "answers": ["y"], "passages": [{"id": "p"}]}', "'passages.0.text'"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, line, shown):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps({**GOOD, "id": "one"}).encode() + b"\n\n" + line + b"\n")
    message = problem(path)
    assert message.startswith(f"{path}:3: ")
    assert shown in message


def test_a_missing_key_of_a_passage_names_the_keys_of_passages(tmp_path):
    message = problem(jsonl(tmp_path / "bad.jsonl", {**GOOD, "passages": [{"id": "p"}]}))
    assert "the keys are id, title, text" in message


@pytest.mark.parametrize(
    ("row", "shown"),
    [({"question": "x"}, "lacks the key 'answers'"), ({"question": "x", "answers": [""]}, "'answers.0' is empty")],
)
def test_a_bad_row_of_parquet_is_named_by_number(tmp_path, row, shown):
    message = problem(parquet(tmp_path / "bad.parquet", GOOD, row))
    assert message.startswith(f"{tmp_path / 'bad.parquet'}:2: ")
    assert shown in message


def test_a_column_of_the_wrong_type_is_named_on_its_first_row(tmp_path):
    message = problem(parquet(tmp_path / "bad.parquet", {**GOOD, "id": 5.5}, {**GOOD, "id": 6.5}))
    assert message.startswith(f"{tmp_path / 'bad.parquet'}:1: 'id' is 5.5: ")


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    assert problem(path) == f"{path}: holds no example; give a file with at least one line"


def test_a_missing_file_is_refused(tmp_path):
    assert problem(tmp_path / "no.jsonl").startswith(f"{tmp_path / 'no.jsonl'}: no such file")
    assert "is a folder" in problem(tmp_path)


@pytest.mark.parametrize("name", ["data.txt", "data.json", "data"])
def test_another_suffix_is_refused(tmp_path, name):
    path = jsonl(tmp_path / name, GOOD)
    assert problem(path).startswith(f"{path}: ends in ")


@pytest.mark.parametrize("content", [b"", b'{"question": "x", "answers": ["y"]}\n', b"PAR1" * 20])
def test_what_is_no_parquet_file_is_refused(tmp_path, content):
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    assert problem(path).startswith(f"{path}: is no parquet file")


def test_parquet_without_rows_is_refused(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"question": pa.array([], pa.string()), "answers": pa.array([], pa.list_(pa.string()))}), path)
    assert "holds no example" in problem(path)


FID = {"question": "who ?", "answers": ["me"], "ctxs": [{"id": 1, "text": "x"}], "target": "me", "split": "train"}


@pytest.fixture
def told(caplog, monkeypatch):
    """What the project's logger says."""
    for name, value in (("propagate", True), ("disabled", False)):  # otherwise where actors were in this process before
        monkeypatch.setattr(logging.getLogger("lapdog"), name, value)
    return caplog


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_keys_that_look_like_data_and_are_not_read_are_told_once(write, tmp_path, told):
    path = write(tmp_path / f"a.{write.__name__}", FID, FID)
    assert len(read_prompts(path)) == 2
    [message] = told.messages
    assert message.startswith(f"{path}: not read: ctxs, target; it looks like fid: python launch.py convert --from fid ")
    read_prompts(path, keep_extra=True)  # a reward of one's own reads them
    assert len(told.messages) == 1


def test_keys_that_no_format_explains_are_told_with_those_that_are_read(tmp_path, told):
    read_prompts(jsonl(tmp_path / "a.jsonl", GOOD, {**GOOD, "documents": ["x"], "level": 3}))
    [message] = told.messages
    assert message.endswith("a.jsonl: not read: documents; the keys that are read are question, answers, id, passages, gold")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"question": "a", "answer": ["b"]}, "nq-open"),
        ({"question": "a", "golden_answers": ["b"]}, "flashrag"),
        ({"input": "a", "output": [{"answer": "b"}]}, "kilt"),
    ],
)
@pytest.mark.parametrize("write", [jsonl, parquet])
def test_a_row_of_another_project_names_what_converts_it(write, row, name, tmp_path):
    path = write(tmp_path / f"a.{write.__name__}", row)
    command = f"python launch.py convert --from {name} --input {path} --output NEW.jsonl"
    assert problem(path).endswith(f"; it looks like {name}: {command}")


def test_a_whole_number_is_an_id_as_its_text(tmp_path):
    row = {**GOOD, "id": 17, "gold": [1, "b"], "passages": [{"id": 1, "text": "x"}]}
    [prompt] = read_prompts(jsonl(tmp_path / "a.jsonl", row))
    assert (prompt.id, prompt.gold, prompt.passages[0].id) == ("17", ("1", "b"), "1")


def test_order_comes_from_the_seed():
    prompts = prompts_named(*"abcdefgh")
    first = [p.id for p in PromptOrder(prompts, 3).take(8)]
    assert [p.id for p in PromptOrder(prompts, 3).take(8)] == first
    assert [p.id for p in PromptOrder(prompts, 4).take(8)] != first


def test_each_epoch_is_another_permutation_of_all():
    order = PromptOrder(prompts_named(*"abcdefgh"), 0)
    epochs = ["".join(p.id for p in order.take(8)) for _ in range(5)]
    assert len(set(epochs)) == 5
    assert all(sorted(epoch) == list("abcdefgh") for epoch in epochs)


def test_take_across_the_end_of_an_epoch_stamps_both_epochs():
    prompts = prompts_named(*"abc")
    taken = PromptOrder(prompts, 0).take(8)
    assert [p.epoch for p in taken] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert len({p.key for p in taken}) == 8
    assert all(p.epoch == 0 for p in prompts)


def test_takes_of_any_size_give_the_same_sequence():
    prompts = prompts_named(*"abcde")
    together = PromptOrder(prompts, 1).take(12)
    order = PromptOrder(prompts, 1)
    assert order.take(1) + order.take(4) + order.take(0) + order.take(7) == together


@pytest.mark.parametrize("before", [0, 3, 5, 7])
def test_a_restored_order_goes_on_exactly(before):
    prompts = prompts_named(*"abcde")
    order = PromptOrder(prompts, 1)
    order.take(before)
    state = json.loads(json.dumps(order.state()))
    assert PromptOrder(prompts, 1, **state).take(9) == order.take(9)


def test_the_state_in_the_middle_of_an_epoch_is_two_numbers():
    order = PromptOrder(prompts_named(*"abcde"), 1)
    order.take(7)
    assert order.state() == {"epoch": 1, "position": 2}
