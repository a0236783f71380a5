import tracemalloc
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.data.dataset import read_prompts
from rollout.data.parquet import ROWS, fields_of, parquet_rows, unread_columns
from rollout.data.rows import ExampleRow
from rollout.errors import DataError

PASSAGE = {"id": 1, "title": "t", "text": "at home", "score": 0.5, "meta": {"on": [1, 2]}}


def write(path, count=2, **columns):
    base = {"question": [f"who {i} ?" for i in range(count)], "answers": [[f"captain {i}"] for i in range(count)]}
    pq.write_table(pa.table({**base, **columns}), path)
    return path


def test_fields_of_structs_that_nobody_asks_for_are_not_read(tmp_path):
    path = write(tmp_path / "a.parquet", passages=[[PASSAGE]] * 2, split=["train"] * 2)
    rows = list(parquet_rows(path, fields_of(ExampleRow)))
    assert rows[0]["passages"] == [{"id": 1, "title": "t", "text": "at home"}] and "split" not in rows[0]
    assert unread_columns(path, fields_of(ExampleRow)) == {"split": 2, "passages.score": 2, "passages.meta.on": 2}
    assert read_prompts(path)[0].passages[0].id == "1"


def test_a_struct_without_any_wanted_field_is_seen_all_the_same(tmp_path):
    path = write(tmp_path / "a.parquet", passages=[[{"contents": "x", "docid": "y"}]] * 2)
    with pytest.raises(DataError, match="a.parquet:1: lacks the key 'passages.0.id'"):
        read_prompts(path)


def test_memory_does_not_depend_on_columns_that_are_ignored(tmp_path):
    zeros = pa.array([[[0] * 200] * 50] * 2 * ROWS, pa.list_(pa.list_(pa.int64())))
    path = write(tmp_path / "a.parquet", count=2 * ROWS, nested=zeros)
    assert path.stat().st_size < 1_000_000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    assert len(read_prompts(path)) == 2 * ROWS
    assert tracemalloc.get_traced_memory()[1] < 5_000_000 and pa.total_allocated_bytes() - before < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_times_in_other_columns_do_no_harm(tmp_path, unit):
    far = pa.array([1_700_000_000_123_456_789, 1], pa.timestamp(unit if unit == "ns" else "ns")).cast(pa.timestamp("ns"))
    took = pa.array([1_234_567_891, 2], pa.duration(unit))
    path = write(tmp_path / "a.parquet", created=far, took=took, nested=pa.array([[1], [2]], pa.list_(pa.timestamp("ns"))))
    assert len(read_prompts(path)) == 2
    kept = read_prompts(path, keep_extra=True)[0].extra
    assert kept["created"] == "2023-11-14 22:13:20.123456789" and kept["took"] == "1234567891"
    assert kept["nested"] == ["1970-01-01 00:00:00.000000001"]


def test_columns_of_any_kind_of_text_are_text(tmp_path):
    words = {"question": ["a ?", "b ?"], "id": ["x", "y"]}
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        columns = {name: pa.array(values, pa.string()).cast(kind) for name, values in words.items()}
        answers = pa.array([["c"], ["d"]], pa.large_list(pa.large_string()))
        pq.write_table(pa.table({**columns, "answers": answers}), tmp_path / "a.parquet")
        prompts = read_prompts(tmp_path / "a.parquet")
        assert [(p.id, p.question, p.answers) for p in prompts] == [("x", "a ?", ("c",)), ("y", "b ?", ("d",))]
    listed = pa.array([["c"], ["d"]], pa.list_(pa.string())).cast(pa.list_(pa.dictionary(pa.int32(), pa.string())))
    assert read_prompts(write(tmp_path / "b.parquet", answers=listed))[1].answers == ("d",)


def test_whole_numbers_are_ids(tmp_path):
    path = write(tmp_path / "a.parquet", id=[5, 6], gold=[[7], [8, 9]])
    assert [(p.id, p.gold) for p in read_prompts(path)] == [("5", ("7",)), ("6", ("8", "9"))]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (pa.array([Decimal("1.5")] * 2), "a.parquet:1: 'id' is Decimal('1.5'): input should be a valid string"),
        (pa.array([float("nan"), 1.0]), "a.parquet:1: 'id' is nan: input should be a valid string"),
        (pa.array([datetime(2024, 1, 2)] * 2), "a.parquet:1: 'id' is datetime.datetime(2024, 1, 2"),
        (pa.array([1, 2], pa.timestamp("ns")), "a.parquet:1: cannot be read (Nanosecond"),
        (pa.array([True, False]), "a.parquet:1: 'id' is True"),
    ],
)
def test_ids_that_are_none_are_named(tmp_path, ids, told):
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path / "a.parquet", id=ids))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_damaged_inside_is_named(tmp_path):
    path = write(tmp_path / "a.parquet", count=2000)
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.parquet:1: cannot be read \(.*\); write the file anew"):
        read_prompts(path)


def test_large_row_groups_are_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("rollout.data.parquet.BYTES", 1)
    path = write(tmp_path / "a.parquet", count=3 * ROWS)
    assert [p.question for p in read_prompts(path)] == [f"who {i} ?" for i in range(3 * ROWS)]
