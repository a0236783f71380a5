import json

import pyarrow as pa
import pytest

from rollout.config import DataSettings
from rollout.errors import DataError
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus, with_absent_gold
from rollout.retrieval.index import Hit
from rollout.retrieval.open import open_index, open_retriever
from rollout.retrieval.query import build_query
from rollout.retrieval.retriever import Retriever
from rollout.text import ENGLISH, TextRules
from rollout.types import Passage, Prompt, Retrieval

DIALOGUE = "persona: i bake. i run. context:  Q: hello ? R: hi . Q: what is new ?"
RARE = ("zebra", "violin", "glacier", "saffron", "lantern")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def passages(tmp_path):
    rows = [{"id": f"s{i}", "title": f"story {i}", "text": f"my friend saw a {word} in town ."} for i, word in enumerate(RARE)]
    rows += [{"id": f"f{i}", "title": "", "text": f"nothing happened on day {i} ."} for i in range(25)]
    return write(tmp_path / "passages.jsonl", rows)


@pytest.fixture
def corpus(passages, tmp_path):
    return Corpus.open(passages, tmp_path / "cache")


def retriever_of(corpus, n_context, query="all"):
    return Retriever(query, n_context, corpus, Bm25(corpus, ENGLISH))


def ask(question, passages=None):
    return Prompt(id="q", question=question, answers=("x",), passages=passages)


@pytest.mark.parametrize(
    ("part", "query"),
    [
        ("all", DIALOGUE),
        ("persona", "i bake. i run."),
        ("last_turn", "what is new ?"),
        ("persona+last_turn", "i bake. i run. what is new ?"),
    ],
)
def test_each_setting_takes_its_part_of_the_question(part, query):
    assert build_query(DIALOGUE, part) == query


@pytest.mark.parametrize("part", ["all", "persona", "last_turn", "persona+last_turn"])
def test_a_question_without_markers_is_its_own_query(part):
    assert build_query("who wrote hamlet ?", part) == "who wrote hamlet ?"


def test_persona_for_r_and_dialog_are_markers_too():
    question = "persona for R: i sing. dialog: Q: hi R: hello Q: who are you ?"
    assert build_query(question, "persona") == "i sing."
    assert build_query(question, "last_turn") == "who are you ?"
    assert build_query(question, "persona+last_turn") == "i sing. who are you ?"


def test_the_last_turn_may_be_the_agents_own():
    assert build_query("persona: i sing. context:  Q: hi ? R: hello .", "last_turn") == "hello ."


def test_a_context_alone_gives_its_last_turn():
    assert build_query("context:  Q: hi ? R: yes . Q: why ?", "last_turn") == "why ?"


def test_a_persona_alone_is_searched_once():
    assert build_query("persona: i sing.", "persona+last_turn") == "i sing."


def test_an_unknown_part_is_our_bug():
    with pytest.raises(ValueError, match="'turns'"):
        build_query(DIALOGUE, "turns")


def test_passages_are_read_by_position(corpus):
    assert len(corpus) == 30
    assert corpus[0] == Passage(id="s0", title="story 0", text="my friend saw a zebra in town .")
    assert corpus[29] == Passage(id="f24", title="", text="nothing happened on day 24 .")
    assert corpus.ids([29, 0]) == ("f24", "s0")


def test_title_and_text_are_indexed(corpus):
    texts = list(corpus.texts())
    assert texts[1] == "story 1 my friend saw a violin in town ."
    assert texts[29] == "nothing happened on day 24 ."
    assert list(corpus.texts(1, 3)) == texts[1:3] and list(corpus.texts(28)) == texts[28:]


def test_an_opened_corpus_takes_no_memory_of_its_own(passages, tmp_path):
    Corpus.open(passages, tmp_path / "cache")
    before = pa.total_allocated_bytes()
    corpus = Corpus.open(passages, tmp_path / "cache")
    assert len(corpus) == 30
    assert pa.total_allocated_bytes() <= before  # what an earlier test left may go meanwhile


def test_corpus_and_index_are_stored_once(passages, tmp_path):
    def stored():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}

    Bm25(Corpus.open(passages, tmp_path / "cache"), ENGLISH)
    first = stored()
    Bm25(Corpus.open(passages, tmp_path / "cache"), ENGLISH)
    assert stored() == first
    assert sum(path.name == "passages.arrow" for path in first) == 1
    assert not [path for path in first if path.name.startswith(".")]  # no drafts are left behind


def test_another_content_is_another_corpus(passages, corpus, tmp_path):
    write(passages, [{"id": "only", "text": "new"}])
    other = Corpus.open(passages, tmp_path / "cache")
    assert (len(other), other[0].text) == (1, "new")
    assert other.folder != corpus.folder


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"id": "b"}', "lacks the key 'text'"),
        ('{"id": "b", "text": " "}', "'text' is empty"),
        ('{"id": 3.5, "text": "x"}', "'id' is 3.5"),
        ("{", "is not JSON"),
    ],
)
def test_bad_passages_are_named(tmp_path, line, shown):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "a", "text": "x"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Corpus.open(path, tmp_path / "cache")
    assert str(caught.value).startswith(f"{path}:2: ") and shown in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_key_of_a_passage_names_the_keys_of_passages(tmp_path):
    with pytest.raises(DataError, match="the keys are id, title, text"):
        Corpus.open(write(tmp_path / "bad.jsonl", [{"id": "a"}]), tmp_path / "cache")


def test_missing_and_empty_passage_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no.jsonl: no such file"):
        Corpus.open(tmp_path / "no.jsonl", tmp_path / "cache")
    with pytest.raises(DataError, match="empty.jsonl: holds no passage"):
        Corpus.open(write(tmp_path / "empty.jsonl", []), tmp_path / "cache")


def test_gold_is_marked_that_neither_the_corpus_nor_the_examples_own_passages_have(corpus):
    own = (Passage(id="own", title="", text="x"),)
    searched = Prompt(id="1", question="?", answers=("!",), gold=("s0", "gone"))
    supplied = Prompt(id="2", question="?", answers=("!",), gold=("own", "s0"), passages=own)
    plain = Prompt(id="3", question="?", answers=("!",))
    assert [p.absent_gold for p in with_absent_gold([searched, supplied, plain], corpus)] == [("gone",), ("s0",), ()]
    assert [p.absent_gold for p in with_absent_gold([searched, supplied], None)] == [("s0", "gone"), ("s0",)]


def test_a_cache_that_cannot_be_written_is_named(passages, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="data.cache"):
        Corpus.open(passages, tmp_path / "file" / "cache")


def test_bm25_finds_the_passage_that_shares_the_rare_word(corpus):
    found = Bm25(corpus, ENGLISH).search([f"my friend saw a {word}" for word in RARE], 3)
    assert [hits[0][0] for hits in found] == [0, 1, 2, 3, 4]
    for hits in found:
        scores = [score for _, score in hits]
        assert len(hits) == 3 and scores[0] > scores[1] > 0 and scores == sorted(scores, reverse=True)


def test_bm25_finds_what_shares_a_word_and_nothing_else(corpus):
    [zebra, day] = Bm25(corpus, ENGLISH).search(["zebra", "zebra day"], 100)
    assert [position for position, _ in zebra] == [0]
    assert sorted(position for position, _ in day) == [0, *range(5, 30)]


@pytest.mark.parametrize("question", ["qqqq zzzz", "the of and", "? !"])
def test_a_query_without_any_indexed_word_finds_nothing(corpus, question):
    assert retriever_of(corpus, 2).retrieve([ask(question)])[0] == Retrieval(passages=(), scores=())


def test_fewer_passages_are_read_where_fewer_are_found(corpus):
    retrieval = retriever_of(corpus, 4).retrieve([ask("zebra or violin")])[0]
    assert sorted(passage.id for passage in retrieval.passages) == sorted(retrieval.ranking) == ["s0", "s1"]
    assert len(retrieval.scores) == 2 and min(retrieval.scores) > 0


def test_each_language_has_an_index_of_its_own(corpus):
    Bm25(corpus, ENGLISH)
    found = Bm25(corpus, TextRules.of("und")).search(["a zebra"], 30)[0]
    assert len(found) == 5  # a word of one letter, no stop word
    assert len([folder for folder in corpus.folder.iterdir() if folder.name.startswith("bm25-")]) == 2


def test_passages_without_a_word_are_refused_in_any_language(tmp_path):
    corpus = Corpus.open(write(tmp_path / "p.jsonl", [{"id": "a", "text": "。！"}]), tmp_path / "cache")
    with pytest.raises(DataError, match="no passage has a word to search for in data.language zh"):
        Bm25(corpus, TextRules.of("zh"))


def test_a_retrieval_does_not_depend_on_its_neighbours(corpus):
    retriever = retriever_of(corpus, 2)
    prompts = [ask("a zebra"), ask("the"), ask("glacier day 7")]
    assert retriever.retrieve(prompts) == [retriever.retrieve([prompt])[0] for prompt in prompts]


def test_the_query_setting_decides_what_is_searched(corpus):
    prompt = ask("persona: i own a zebra. context:  Q: glacier ?")
    for part, best in (("persona", "s0"), ("last_turn", "s2")):
        assert retriever_of(corpus, 1, part).retrieve([prompt])[0].passages[0].id == best


def test_ranking_holds_twenty_ids_and_begins_with_what_is_read(corpus):
    retrieval = retriever_of(corpus, 3).retrieve([ask("a violin day")])[0]
    assert len(retrieval.ranking) == len(set(retrieval.ranking)) == 20
    assert tuple(p.id for p in retrieval.passages) == retrieval.ranking[:3]
    assert retrieval.ranking[0] == "s1" and len(retrieval.scores) == 3


def test_supplied_passages_replace_retrieval(corpus):
    own = tuple(Passage(id=f"own{i}", title="", text="mine") for i in range(3))
    prompts = [ask("zebra", own), ask("zebra"), ask("zebra", ())]
    supplied, searched, none = retriever_of(corpus, 2).retrieve(prompts)
    assert supplied == Retrieval(passages=own[:2], scores=(0, 0), ranking=("own0", "own1", "own2"))
    assert searched.passages[0].id == "s0"
    assert none == Retrieval(passages=(), scores=())


def test_no_context_reads_nothing_but_still_ranks(corpus):
    retrieval = retriever_of(corpus, 0).retrieve([ask("zebra")])[0]
    assert (retrieval.passages, retrieval.scores) == ((), ())
    assert retrieval.ranking[0] == "s0"


def test_without_a_corpus_nothing_is_read():
    assert Retriever("all", 4).retrieve([ask("zebra")]) == [Retrieval(passages=(), scores=())]


def test_more_context_than_passages_is_refused(corpus):
    assert len(retriever_of(corpus, 30).retrieve([ask("day saw")])[0].passages) == 30
    with pytest.raises(DataError, match="policy.n_context: 31 .* holds 30; lower it"):
        retriever_of(corpus, 31)


def test_any_index_of_the_corpus_can_be_searched(corpus):
    class Last:
        """Finds the corpus's last passages, whatever is asked."""

        size = 30

        def search(self, queries, depth):
            return [[Hit(self.size - i, 1 / i) for i in range(1, depth + 1)] for _ in queries]

    [first, second] = Retriever("all", 2, corpus, Last()).retrieve([ask("zebra"), ask("violin")])
    assert [p.id for p in first.passages] == ["f24", "f23"] and first.scores == (1, 0.5)
    assert len(first.ranking) == 20 and first == second


def test_the_settings_passages_are_opened_and_searched_with_their_query(passages, tmp_path):
    data = DataSettings(passages=passages, cache=tmp_path / "cache", query="last_turn", language="en")
    retriever = open_retriever(data, 1)
    prompt = ask("persona: i own a zebra. context:  Q: glacier ?")
    assert retriever.retrieve([prompt])[0].passages[0].id == "s2" and len(retriever.corpus) == 30
    assert open_index(retriever.corpus, data).size == 30
    assert open_retriever(DataSettings(), 1).retrieve([prompt]) == [Retrieval(passages=(), scores=())]
