import json

from rollout.retrieval import corpus as corpora
from rollout.retrieval import repeated_ids
from rollout.retrieval.corpus import Corpus


def write(path, *ids):
    """A passage a line; None is a blank line."""
    path.write_text("".join("\n" if id is None else json.dumps({"id": id, "text": f"of {id}"}) + "\n" for id in ids))
    return path


def test_passages_of_one_id_are_both_kept_and_said(tmp_path):
    corpus = Corpus.open(write(tmp_path / "p.jsonl", "a", "a"), tmp_path / "cache")
    assert corpus.ids([0, 1]) == ("a", "a")
    assert corpus.told == (f"{tmp_path}/p.jsonl:2: passage id 'a' stands on line 1 already; both are kept",)


def test_the_first_place_is_named_by_file_and_line_in_the_order_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "ROWS_PER_BATCH", 2)
    monkeypatch.setattr(repeated_ids, "HASHES", 3)  # so few in memory at once
    files = [write(tmp_path / "1.jsonl", "a", None, "b", "c"), write(tmp_path / "2.jsonl", "d", "b", None, 1, "d", "a", "1")]
    corpus = Corpus.open(files, tmp_path / "cache")
    one, two = files
    told = f"{two}:2: passage id 'b' stands in {one}:3 already, as ids of 4 passages do; all are kept"
    assert corpus.told == (told,)


def test_what_was_said_when_passages_were_stored_is_said_again_of_where_they_lie_now(tmp_path):
    file = write(tmp_path / "p.jsonl", "a", "a")
    file.write_text(file.read_text() + json.dumps({"id": "b", "text": "b", "answers": ["c"]}) + "\n")
    before = Corpus.open(file, tmp_path / "cache")
    moved = file.rename(tmp_path / "q.jsonl")
    after = Corpus.open(moved, tmp_path / "cache")
    assert after.folder == before.folder and after.told == tuple(text.replace(str(file), str(moved)) for text in before.told)
    assert [text.partition(" ")[2][:30] for text in after.told] == [
        "not read: answers; the keys th",
        "passage id 'a' stands on line ",
    ]


def test_equal_hashes_of_different_ids_are_no_repetition(tmp_path, monkeypatch):
    monkeypatch.setattr(repeated_ids, "_hashes", lambda batch: repeated_ids.np.zeros(batch.num_rows, int))
    corpus = Corpus.open(write(tmp_path / "p.jsonl", "a", "b", "c", "b"), tmp_path / "cache")
    assert corpus.told == (f"{tmp_path}/p.jsonl:4: passage id 'b' stands on line 2 already; both are kept",)


def test_long_passages_are_kept_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "CHARACTERS_PER_BATCH", 6)
    corpus = Corpus.open(write(tmp_path / "p.jsonl", *"abcde"), tmp_path / "cache")
    assert list(corpus.texts()) == [f"of {id}" for id in "abcde"]
    assert list(corpus.texts(1, 4)) == ["of b", "of c", "of d"] and list(corpus.texts(4)) == ["of e"]
