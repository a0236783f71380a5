"""A row of each format, as its project publishes it, and the row of ours that it becomes."""

import gzip
import hashlib
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.data.convert.converter import convert_files
from rollout.data.convert.formats import FORMATS, NAMES
from rollout.data.dataset import read_prompts
from rollout.data.reading import read_rows
from rollout.data.rows import ExampleRow, PassageRow
from rollout.errors import DataError

MOSS = "The moss book was written by Ann Lee."
MOSS_ID = f"Moss-{hashlib.sha256(MOSS.encode()).hexdigest()[:8]}"
MOSS_PASSAGE = {"id": MOSS_ID, "title": "Moss", "text": MOSS}
ASKED = {"question": "who wrote the moss book ?", "answers": ["Ann Lee", "A. Lee"]}
CTXS = [
    {"id": "wiki:1", "title": "Moss", "text": MOSS, "score": "82.1", "hasanswer": True},
    {"id": 2, "title": "Fern", "text": "A fern.", "score": 7.5, "hasanswer": False},
    {"title": "Void", "text": " "},
]
FID = {"id": 3, "question": ASKED["question"], "target": "A. Lee", "answers": ["Ann Lee", "A. Lee"], "ctxs": CTXS}
SEARCH_R1 = {
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "Answer the given question. Question: who wrote the moss book ?\n"}],
    "reward_model": {"ground_truth": {"target": ["Ann Lee", "A. Lee"]}, "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
}
HOTPOT = {
    "_id": "5a",
    "question": ASKED["question"],
    "answer": "Ann Lee",
    "type": "bridge",
    "context": [["Moss", ["The moss book was written", " by Ann Lee."]], ["Fern", ["A fern."]]],
    "supporting_facts": [["Moss", 0], ["Moss", 1]],
}
HOTPOT_OF_HUGGING_FACE = {
    "id": "5a",
    "question": ASKED["question"],
    "answer": "Ann Lee",
    "context": {"title": ["Moss", "Fern"], "sentences": [["The moss book was written", " by Ann Lee."], ["A fern."]]},
    "supporting_facts": {"title": ["Moss", "Moss"], "sent_id": [0, 1]},
}
HOTPOT_OURS = {
    "id": "5a",
    "question": ASKED["question"],
    "answers": ["Ann Lee"],
    "passages": [{"id": "Moss", "title": "Moss", "text": MOSS}, {"id": "Fern", "title": "Fern", "text": "A fern."}],
    "gold": ["Moss"],
}
KILT = {
    "id": "k1",
    "input": ASKED["question"],
    "output": [
        {"answer": "Ann Lee", "provenance": [{"wikipedia_id": "290", "title": "Moss"}, {"wikipedia_id": "290"}]},
        {"answer": "A. Lee"},
        {"provenance": [{"wikipedia_id": 7}]},
    ],
}
QUESTION_OF_SQUAD = {"id": "s1", "question": ASKED["question"], "answers": [{"text": "Ann Lee", "answer_start": 29}] * 3}
SQUAD = {"version": "1.1", "data": [{"title": "Moss", "paragraphs": [{"context": MOSS, "qas": [QUESTION_OF_SQUAD]}]}]}
SQUAD_ROW = {
    "id": "s1",
    "title": "Moss",
    "context": MOSS,
    "question": ASKED["question"],
    "answers": {"text": ["Ann Lee", "Ann Lee"], "answer_start": [29, 29]},
}
SQUAD_OURS = {
    "id": "s1",
    "question": ASKED["question"],
    "answers": ["Ann Lee"],
    "passages": [MOSS_PASSAGE],
    "gold": [MOSS_ID],
}
TRIVIA = {
    "QuestionId": "tc_1",
    "Question": ASKED["question"],
    "Answer": {"Value": "Ann Lee", "Aliases": ["A. Lee", "Ann Lee"], "NormalizedValue": "ann lee"},
    "EntityPages": [],
}
TRIVIA_ROW = {
    "question": ASKED["question"],
    "question_id": "tc_1",
    "answer": {"value": "Ann Lee", "aliases": ["A. Lee"], "normalized_aliases": ["a lee"]},
}

CASES = {
    "fid": (
        "fid",
        [FID],
        {
            "id": "3",
            "question": ASKED["question"],
            "answers": ["A. Lee", "Ann Lee"],
            "passages": [
                {"id": "wiki:1", "title": "Moss", "text": MOSS},
                {"id": "2", "title": "Fern", "text": "A fern."},
            ],
            "gold": ["wiki:1"],
        },
    ),
    "ours": ("fid", [{"id": 17, **ASKED}], {"id": "17", **ASKED}),
    "nq-open": ("nq-open", [{"question": ASKED["question"], "answer": ["Ann Lee", "A. Lee", "Ann Lee"]}], ASKED),
    "flashrag": (
        "flashrag",
        [{"id": "test_0", "question": ASKED["question"], "golden_answers": ["Ann Lee", "A. Lee"], "metadata": {"hop": 1}}],
        {"id": "test_0", **ASKED},
    ),
    "search-r1": ("search-r1", [SEARCH_R1], ASKED),
    "search-r1 with a question": (
        "search-r1",
        [{"id": "train_0", "question": ASKED["question"], "golden_answers": ["Ann Lee", "A. Lee"], **SEARCH_R1}],
        {"id": "train_0", **ASKED},
    ),
    "verl": ("search-r1", [SEARCH_R1 | {"reward_model": {"ground_truth": "72"}}], {**ASKED, "answers": ["72"]}),
    "kilt": ("kilt", [KILT], {"id": "k1", **ASKED, "gold": ["290", "7"]}),
    "hotpotqa": ("hotpotqa", [HOTPOT], HOTPOT_OURS),
    "hotpotqa of Hugging Face": ("hotpotqa", [HOTPOT_OF_HUGGING_FACE], HOTPOT_OURS),
    "squad": ("squad", SQUAD["data"], SQUAD_OURS),
    "squad of Hugging Face": ("squad", [SQUAD_ROW], SQUAD_OURS),
    "squad with plain answers": (
        "squad",
        [{"question": ASKED["question"], "context": MOSS, "answer": "Ann Lee"}],
        {
            "question": ASKED["question"],
            "answers": ["Ann Lee"],
            "passages": [{"id": MOSS_ID.removeprefix("Moss-"), "title": "", "text": MOSS}],
            "gold": [MOSS_ID.removeprefix("Moss-")],
        },
    ),
    "squad with a list of objects": ("squad", [SQUAD_ROW | {"answers": QUESTION_OF_SQUAD["answers"]}], SQUAD_OURS),
    "triviaqa": ("triviaqa", [TRIVIA], {"id": "tc_1", **ASKED}),
    "triviaqa of Hugging Face": ("triviaqa", [TRIVIA_ROW], {"id": "tc_1", **ASKED}),
    "dpr": (
        "dpr",
        [{**ASKED, "positive_ctxs": [{"title": "Moss", "text": MOSS, "passage_id": "11"}], "negative_ctxs": []}],
        {**ASKED, "gold": ["11"]},
    ),
    "passages of dpr": ("dpr", [{"id": 1, "text": MOSS, "title": "Moss"}], {"id": "1", "title": "Moss", "text": MOSS}),
    "contents": (
        "contents",
        [{"id": 0, "contents": f'"Moss"\n{MOSS}\nMore.'}],
        {"id": "0", "title": "Moss", "text": f"{MOSS}\nMore."},
    ),
    "contents without quotes": (
        "contents",
        [{"id": "0", "contents": f"Moss\n{MOSS}"}],
        {"id": "0", "title": "Moss", "text": MOSS},
    ),
    "contents without a title": ("contents", [{"id": "0", "contents": MOSS}], {"id": "0", "title": "", "text": MOSS}),
}


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_jsonl(folder, rows):
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_array(folder, rows):
    path = folder / "in.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def as_packed(folder, rows):
    path = folder / "in.jsonl.gz"
    path.write_bytes(gzip.compress(as_jsonl(folder, rows).read_bytes()))
    return path


def as_parquet(folder, rows):
    path = folder / "in.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("write", [as_jsonl, as_array, as_packed, as_parquet])
@pytest.mark.parametrize("case", CASES)
def test_a_format_is_known_by_its_rows_and_becomes_ours(case, write, tmp_path):
    name, rows, expected = CASES[case]
    if write is as_parquet and case in ("fid", "hotpotqa", "kilt"):
        pytest.skip("a column of parquet has one type")
    target = tmp_path / "out.jsonl"
    account = convert_files([write(tmp_path, rows)], target)
    assert (account.formats, account.written) == ([name], 1)
    assert rows_of(target) == [expected]
    assert len(list(read_rows(target, ExampleRow if "question" in expected else PassageRow))) == 1


def test_every_format_has_a_case_and_a_name():
    assert {name for name, *_ in CASES.values()} == {each.name for each in FORMATS} == set(NAMES) - {"auto", "parlai"}


def test_parquet_holds_the_same_as_jsonl(tmp_path):
    source = as_jsonl(tmp_path, [FID, HOTPOT | {"_id": None}])
    for name in ("out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet"):
        convert_files([source], tmp_path / name, "fid")
    expected = read_prompts(tmp_path / "out.jsonl")
    assert len(expected) == 1
    for name in ("out.jsonl.gz", "out.jsonl.zst", "out.parquet"):
        assert read_prompts(tmp_path / name) == expected


def test_published_squad_is_read_whole_and_what_has_no_answer_is_named(tmp_path):
    impossible = {"id": "s2", "question": "why ?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "so"}]}
    paragraphs = [{"context": MOSS, "qas": [QUESTION_OF_SQUAD, impossible, impossible | {"id": "s3"}]}]
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "Moss", "paragraphs": paragraphs}]}))
    account = convert_files([path], tmp_path / "out.jsonl")
    assert rows_of(tmp_path / "out.jsonl") == [SQUAD_OURS]
    first, second = account.lines()
    assert first == f"left out, without an answer: 2, the first {path}:1"
    assert "paragraphs.qas.plausible_answers (1)" in second and "paragraphs.qas.answers.answer_start (1)" in second


def test_published_triviaqa_is_unwrapped(tmp_path):
    path = tmp_path / "web-dev.json"
    hidden = {"Question": "what ?", "Answer": {"Value": "<unk>", "Aliases": []}}
    path.write_text(json.dumps({"Data": [TRIVIA, hidden], "Domain": "Web"}, indent=2))
    account = convert_files([path], tmp_path / "out.jsonl")
    assert rows_of(tmp_path / "out.jsonl") == [{"id": "tc_1", **ASKED}]
    assert account.noted == {"left out, without an answer": (1, f"{path}:2")}


def test_what_is_left_out_is_counted_and_first_named(tmp_path):
    rows = [
        {"question": "a", "answer": []},
        {"question": " ", "answer": "x"},
        {"question": "b"},
        {"question": "c", "answer": 7},
    ]
    source = as_jsonl(tmp_path, [{"question": "z", "answer": "y", "split": "train"}, *rows])
    account = convert_files([source], tmp_path / "out.jsonl")
    assert [row["answers"] for row in rows_of(tmp_path / "out.jsonl")] == [["y"], ["7"]]
    assert list(account.lines()) == [
        f"left out, without an answer: 2, the first {source}:2",
        f"left out, without a question: 1, the first {source}:3",
        "not kept: split (1)",
    ]


def test_an_id_that_stands_twice_is_named_anew(tmp_path):
    source = as_jsonl(tmp_path, [{"id": 1, **ASKED}] * 3)
    account = convert_files([source], tmp_path / "out.jsonl")
    assert [row["id"] for row in rows_of(tmp_path / "out.jsonl")] == ["1", "1#2", "1#3"]
    assert list(account.lines()) == [f"named anew, for another has their id: 2, the first {source}:2"]


def test_several_files_of_several_formats_become_one(tmp_path):
    (tmp_path / "b").mkdir()
    sources = [as_jsonl(tmp_path, [FID]), as_array(tmp_path / "b", [TRIVIA])]
    account = convert_files(sources, tmp_path / "out.jsonl")
    assert account.formats == ["fid", "triviaqa"]
    assert [row["id"] for row in rows_of(tmp_path / "out.jsonl")] == ["3", "tc_1"]


def test_passages_of_dpr_are_read_with_their_quotes(tmp_path):
    path = tmp_path / "psgs_w100.tsv"
    path.write_text('id\ttext\ttitle\n1\t"He said ""no"" to\n\nall."\t"A ""B"""\n2\tplain\tC\n3\t" "\tD\n')
    account = convert_files([path], tmp_path / "out.jsonl")
    assert rows_of(tmp_path / "out.jsonl") == [
        {"id": "1", "title": 'A "B"', "text": 'He said "no" to\n\nall.'},
        {"id": "2", "title": "C", "text": "plain"},
    ]
    assert account.kind == "passages"
    assert list(account.lines()) == [f"passages left out, without a text: 1, the first {path}:6"]


def test_quotes_that_csv_would_end_before_their_field_are_text(tmp_path):
    path = tmp_path / "a.tsv"
    fields = ['"Heroes" is a song', '"A" and "B"', '"not closed', 'a "quoted" word', '"in ""csv"" quotes"', '""', "plain"]
    rows = [f"{number}\t{field}\tT" for number, field in enumerate(fields)]
    path.write_text("\n".join(["id\ttext\ttitle", *rows, '7\tlast\t"Heroes" (song)\n']))
    account = convert_files([path], tmp_path / "out.jsonl")
    assert [row["text"] for row in rows_of(tmp_path / "out.jsonl")] == [
        '"Heroes" is a song',
        '"A" and "B"',
        '"not closed',
        'a "quoted" word',
        'in "csv" quotes',
        "plain",
        "last",
    ]
    assert rows_of(tmp_path / "out.jsonl")[-1]["title"] == '"Heroes" (song)'
    assert list(account.lines()) == [
        f"kept with the quotes that they begin with, for csv would end them sooner: 4, the first {path}:2",
        f"passages left out, without a text: 1, the first {path}:7",
    ]


NUMBERS = ["3.50", "1.0", "1e-5", "2E+3", "100000000000000000000.0", "0.10", "-0.0", "12345678901234567890123"]


@pytest.mark.parametrize("form", ["jsonl", "array", "object"])
def test_a_number_stays_as_it_is_written(form, tmp_path):
    answers = f'"answer": [{", ".join(NUMBERS)}, true, "3.50"]'
    row = f'{{"question": 7.20, "id": 1.10, {answers}}}'
    text = {"jsonl": f"{row}\n{row}\n", "array": f"[{row}]", "object": f'{{\n"data": [{row}]}}'}[form]
    (tmp_path / "in.json").write_text(text)
    convert_files([tmp_path / "in.json"], tmp_path / "out.jsonl", "nq-open")
    first = rows_of(tmp_path / "out.jsonl")[0]
    assert first == {"id": "1.10", "question": "7.20", "answers": [*NUMBERS, "true"]}


def test_decimals_of_parquet_keep_their_places(tmp_path):
    source = as_parquet(tmp_path, [{"question": "a", "answer": [Decimal("3.50")]}])
    convert_files([source], tmp_path / "out.jsonl")
    assert rows_of(tmp_path / "out.jsonl") == [{"question": "a", "answers": ["3.50"]}]


def test_passages_of_one_id_are_all_kept_and_told(tmp_path):
    twice = HOTPOT | {"context": [*HOTPOT["context"], ["Moss", ["Moss is green."]]]}
    source = as_jsonl(tmp_path, [HOTPOT | {"_id": "5b"}, twice])
    account = convert_files([source], tmp_path / "out.jsonl")
    assert [len(row["passages"]) for row in rows_of(tmp_path / "out.jsonl")] == [2, 3]
    assert f"examples with several passages of one id, which are all kept: 1, the first {source}:2" in account.lines()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.tsv", "id\ttext\ttitle\n1\tone\n", "a.tsv:2: has 2 columns, the header 3"),
        ("a.tsv", 'id\ttext\ttitle\n1\t"one\tA\n2\ttwo"\tB\n', "a.tsv:2: opens a quote that is not closed"),
        ("a.txt", "hello\n", "a.txt: is of no known format; say which it is with --from: parlai, search-r1, "),
        ("a.jsonl", '{"x": 1, "y": 2}\n', "a.jsonl: the keys x, y are of no known format; say which"),
        ("a.jsonl", '{"question": "a", "answer": "b"}\n{"question": \n', "a.jsonl:2: is not JSON"),
        ("a.jsonl", '{"question": "a", "answer": "b"}\n[1]\n', "a.jsonl:2: as nq-open: is no JSON object"),
        (
            "a.jsonl",
            '{"question": "a", "answer": {"b": ["c"]}}\n',
            "a.jsonl: holds nothing to convert; left out, without an answer: 1",
        ),
        ("a.json", '[{"question": "a", "answer": "b"}, {"question": "c"', "a.json:2: is no entry of a JSON array"),
        ("a.json", '[{"question": "a", "answer": "\\ud800"}]', "a.json:1: is no entry of a JSON array"),
        ("a.json", "[1, 2]", "a.json:1: is 1, no JSON object"),
        ("a.json", '{\n"question": "a"\n', "a.json: is neither one JSON value nor one a line"),
        ("a.json", '[{"question": "a", "ctxs": "none", "answers": ["b"]}]', "a.json:1: as fid: 'ctxs' is 'none'"),
        ("a.json", "", "a.json: holds nothing to convert; give a file with questions and answers, or with passages"),
        ("a.json", b"\xff\xfe[\0]\0", "a.json:1: begins with the byte-order mark of UTF-16"),
        ("a.json.gz", "[]", "a.json.gz: cannot be read to its end ("),
        ("a.parquet", "PAR1", "a.parquet: is no parquet file"),
    ],
)
def test_what_cannot_be_converted_is_named_and_leaves_the_target_alone(name, content, told, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "out.jsonl").write_text("before")
    with pytest.raises(DataError) as caught:
        convert_files([tmp_path / name], tmp_path / "out.jsonl")
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "out.jsonl").read_text() == "before" and len(list(tmp_path.iterdir())) == 2


def test_a_format_that_is_named_says_what_is_lacking(tmp_path):
    with pytest.raises(DataError, match=r"in.jsonl:1: as contents: lacks the key 'contents'; the keys are id, contents, title"):
        convert_files([as_jsonl(tmp_path, [{"id": "1", "text": "a"}])], tmp_path / "out.jsonl", "contents")


def test_an_array_is_read_in_pieces_wherever_they_part(tmp_path, monkeypatch):
    rows = [{"question": f"ä {i} \\ ] }} ?", "answer": ["]", "\U0001f600"]} for i in range(50)]
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, ensure_ascii=False).encode())
    for chunk in (1, 7, 64):
        monkeypatch.setattr("rollout.data.convert.records.CHUNK", chunk)
        convert_files([path], tmp_path / "out.jsonl")
        assert [row["question"] for row in rows_of(tmp_path / "out.jsonl")] == [row["question"] for row in rows]
