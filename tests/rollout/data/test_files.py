import bz2
import gzip
import io
import json
import lzma
import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.data.dataset import read_prompts
from rollout.data.files import data_files, text_lines
from rollout.errors import DataError
from rollout.retrieval.corpus import Corpus

ZSTD = pa.Codec("zstd")


def example(question, **more):
    return {"question": question, "answers": ["yes"], **more}


def jsonl(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


@pytest.fixture
def shards(tmp_path):
    """Three shards, each of another kind, and what is none."""
    folder = tmp_path / "shards"
    jsonl(folder / "c.jsonl", example("c ?"))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(example("b ?", id=7)).encode()))
    pq.write_table(pa.Table.from_pylist([example("a ?")]), folder / "a.parquet")
    for name in ("_SUCCESS", ".a.jsonl.crc", "README.md"):
        (folder / name).write_text("no data")
    return folder


def test_a_folder_means_its_shards_by_name(shards):
    assert [path.name for path in data_files(shards)] == ["a.parquet", "b.jsonl.gz", "c.jsonl"]
    assert [prompt.id for prompt in read_prompts(shards)] == ["1:line-1", "7", "3:line-1"]


def test_a_pattern_means_what_it_matches_and_a_list_keeps_its_order(shards):
    assert [path.name for path in data_files(shards / "[bc].*")] == ["b.jsonl.gz", "c.jsonl"]
    assert [path.name for path in data_files([shards / "c*", shards / "a.parquet"])] == ["c.jsonl", "a.parquet"]
    assert [path.name for path in data_files(shards.parent / "*")] == ["a.parquet", "b.jsonl.gz", "c.jsonl"]
    odd = jsonl(shards / "odd[1].jsonl", example("d ?"))
    assert data_files(odd) == [odd]


def test_examples_keep_their_ids_where_files_are_moved_renamed_and_packed(tmp_path):
    files = [jsonl(tmp_path / part / "x.jsonl", example(f"{part} ?")) for part in ("one", "two")]
    before = read_prompts(files)
    assert [prompt.id for prompt in before] == ["1:line-1", "2:line-1"]
    (tmp_path / "all").mkdir()
    moved = [tmp_path / "all" / name for name in ("a.jsonl", "b.jsonl.gz")]
    moved[0].write_bytes(files[0].read_bytes())
    moved[1].write_bytes(gzip.compress(files[1].read_bytes()))
    assert read_prompts(tmp_path / "all") == read_prompts(moved) == before


def test_ids_are_distinct_over_all_files(tmp_path):
    files = [jsonl(tmp_path / "a.jsonl", example("a ?", id="x")), jsonl(tmp_path / "b.jsonl", example("b ?", id="x"))]
    with pytest.raises(DataError) as caught:
        read_prompts(files)
    told = f"id 'x' stands in {files[0]}:1 already; give every example its own"
    assert str(caught.value) == f"{files[1]}:1: {told}"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_packed_files_of_several_parts_are_read_whole(name, tmp_path):
    parts = [json.dumps(example(f"{i} ?")).encode() + b"\n" for i in range(2)]
    pack = gzip.compress if name.endswith("gz") else lambda part: ZSTD.compress(part, asbytes=True)
    (tmp_path / name).write_bytes(b"".join(map(pack, parts)))
    assert [prompt.id for prompt in read_prompts(tmp_path / name)] == ["line-1", "line-2"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("kept", [0, 20])
def test_a_packed_file_that_is_none_or_cut_short_is_named(name, kept, tmp_path):
    content = json.dumps(example("?" * 1000)).encode()
    whole = gzip.compress(content) if name.endswith("gz") else ZSTD.compress(content, asbytes=True)
    (tmp_path / name).write_bytes(whole[:kept] if kept else content)
    with pytest.raises(DataError, match=rf"{name}: cannot be read to its end \(.*\); pack it anew"):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: ZSTD.compress(content, asbytes=True)])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_what_is_packed_is_known_by_its_content(name, pack, tmp_path):
    (tmp_path / name).write_bytes(pack(json.dumps(example("a ?")).encode()))
    assert [prompt.question for prompt in read_prompts(tmp_path / name)] == ["a ?"]


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jsonl", content)
    return file.getvalue()


def as_parquet(content):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([json.loads(content)]), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("pack", "told"),
    [
        (bz2.compress, "begins as bzip2 does, and not as text; unpack it"),
        (lzma.compress, "begins as xz does, and not as text; unpack it"),
        (zipped, "begins as zip does, and not as text; unpack it"),
        (lambda content: gzip.compress(gzip.compress(content)), "begins as gzip does, and not as text; unpack it"),
        (as_parquet, "begins as parquet does, and not as text; name it .parquet"),
    ],
)
def test_what_is_no_text_is_named(pack, told, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(pack(json.dumps(example("a ?")).encode()))
    with pytest.raises(DataError, match=f"a.jsonl:1: {told}"):
        read_prompts(tmp_path / "a.jsonl")


def test_a_text_may_begin_as_the_name_of_a_format(tmp_path):
    (tmp_path / "a.txt").write_text("BZh and PAR1 and ARROW1")
    assert list(text_lines(tmp_path / "a.txt")) == [(1, "BZh and PAR1 and ARROW1")]


def test_packed_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(DataError, match="a.parquet.gz: parquet packs its columns itself; unpack the file"):
        read_prompts(tmp_path / "a.parquet.gz")


def test_byte_order_marks_of_files_that_were_joined_do_not_matter(tmp_path):
    line = b"\xef\xbb\xbf" + json.dumps(example("a ?")).encode() + b"\n"
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + line)
    assert len(read_prompts(tmp_path / "a.jsonl")) == 2
    assert [text[0] for _, text in text_lines(tmp_path / "a.jsonl")] == ["{", "{"]


@pytest.mark.parametrize(("code", "told"), [("utf-16", "byte-order mark of UTF-16"), ("utf-16-le", "zero bytes, as UTF-16")])
def test_utf_16_is_named(tmp_path, code, told):
    (tmp_path / "a.jsonl").write_bytes(json.dumps(example("a ?")).encode(code))
    with pytest.raises(DataError, match=f"a.jsonl:1: .*{told}.*; save the file as UTF-8"):
        read_prompts(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["no.jsonl"], "no.jsonl: no such file; check the path"),
        (["*.jsonl"], "*.jsonl: no such file, and none that this pattern matches; check it"),
        ([""], "is a folder without .jsonl or .parquet files; name a file, or a folder of them"),
        (["a.parquet", "*.parquet"], "a.parquet: is named twice; leave one out"),
    ],
)
def test_what_leads_to_no_file_or_twice_to_one_is_refused(given, told, tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    if "parquet" in given[0]:
        (folder / "a.parquet").touch()
    with pytest.raises(DataError) as caught:
        data_files([folder / path if path else folder for path in given])
    assert told in str(caught.value)


def test_a_file_is_named_twice_whatever_its_names(tmp_path):
    file = jsonl(tmp_path / "data" / "a.jsonl", example("a ?"))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    os.link(file, tmp_path / "hard.jsonl")
    for other in (tmp_path / "link" / "a.jsonl", tmp_path / "data" / ".." / "data" / "a.jsonl", tmp_path / "hard.jsonl"):
        with pytest.raises(DataError) as caught:
            data_files([file, other])
        assert str(caught.value) == f"{other}: is named twice, the other time as {file}; leave one out"


def passages(path, *ids):
    return jsonl(path, *({"id": id, "text": f"text of {id}"} for id in ids))


def test_a_corpus_of_several_files_is_their_content_in_order(tmp_path):
    files = [passages(tmp_path / "p" / "1.jsonl", 1, "b"), passages(tmp_path / "p" / "2.jsonl", "c")]
    corpus = Corpus.open(files, tmp_path / "cache")
    assert corpus.ids([0, 1, 2]) == ("1", "b", "c")
    assert Corpus.open(tmp_path / "p", tmp_path / "cache").folder == corpus.folder
    assert Corpus.open(tmp_path / "p" / "*", tmp_path / "cache").folder == corpus.folder
    others = [files[:1], files[::-1]]
    assert len({corpus.folder, *(Corpus.open(other, tmp_path / "cache").folder for other in others)}) == 3


def test_passages_are_known_by_their_rows_however_they_are_spread_and_packed(tmp_path, monkeypatch):
    whole = passages(tmp_path / "p.jsonl", 1, "b", "c")
    first, rest = whole.read_text().splitlines()[:1], whole.read_text().splitlines()[1:]
    (tmp_path / "1.jsonl").write_text("\n".join([*first, ""]))
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress("\n\n".join(rest).encode()))
    rows = [{**json.loads(line), "id": str(json.loads(line)["id"]), "title": None} for line in whole.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    monkeypatch.setattr("rollout.retrieval.corpus.ROWS_PER_BATCH", 2)
    same = [[whole], [tmp_path / "1.jsonl", tmp_path / "2.jsonl.gz"], [tmp_path / "p.parquet"]]
    opened = [Corpus.open(files, tmp_path / "cache") for files in same]
    assert len({corpus.digest for corpus in opened}) == 1 and len({corpus.folder for corpus in opened}) == 3
    others = [[("1", "", "ab")], [("1", "a", "b")], [("1a", "", "b")], [("1", "", "ab"), ("2", "", "x")]]
    digests = set()
    for number, rows in enumerate(others):
        file = jsonl(
            tmp_path / f"other-{number}.jsonl", *({"id": id, "title": title, "text": text} for id, title, text in rows)
        )
        digests.add(Corpus.open(file, tmp_path / "cache").digest)
    assert len(digests) == 4


def test_a_corpus_knows_which_ids_it_lacks(tmp_path):
    corpus = Corpus.open(passages(tmp_path / "p.jsonl", "a", 2), tmp_path / "cache")
    assert corpus.absent({"a", "2", "x"}) == {"x"} and corpus.absent({"a"}) == set()
