import re
import string

import bm25s
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU

from reward.metrics import TextMetrics, best
from rollout.data import demo
from rollout.text import ENGLISH

METRICS = TextMetrics(ENGLISH)
f1, raw_f1, exact_match, rouge_l = METRICS.f1, METRICS.raw_f1, METRICS.exact_match, METRICS.rouge_l
rouge, bleu, corpus_bleu = METRICS.rouge, METRICS.bleu, METRICS.corpus_bleu
# text, reference, raw F1, normalised F1, BLEU in percent: measured on LAPDOG's own scorers.
GOLDEN = [
    ("", "i am good .", 0, 0, 0),
    (".", "i am good .", 0.40, 0, 4.98),
    ("...", "i am good .", 0, 0, 19.7),
    ("i am good", "i am good .", 0.857, 1, 71.7),
    ("I am Good .", "i am good .", 0.5, 1, 19.0),
    ("the a an", "the cat", 0.4, 0, 27.5),
    ("yes", "yes", 1, 1, 100),
    ("no", "yes", 0, 0, 0),
    ("i i i i i", "i am good .", 0.222, 0.25, 10.7),
]
TEXTS = [row[0] for row in GOLDEN] + ["so , you work two jobs ? that is hard !", "i am good , i have two jobs ."]


@pytest.mark.parametrize(("text", "reference", "raw", "normalised", "percent"), GOLDEN)
def test_golden_cases(text, reference, raw, normalised, percent):
    assert raw_f1(text, reference) == pytest.approx(raw, abs=5e-4)
    assert f1(text, reference) == pytest.approx(normalised, abs=5e-4)
    assert 100 * bleu(text, reference) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
@pytest.mark.parametrize("metric", [f1, raw_f1, rouge_l, bleu, exact_match])
def test_blank_text_scores_zero(metric, blank):
    assert metric(blank, "yes") == metric("yes", blank) == metric(blank, blank) == 0


def test_texts_that_would_vanish_are_kept_and_share_what_they_say():
    assert f1(".", "...") == f1("the", "a") == exact_match("the", "A") == exact_match("!", "A") == 0
    assert f1("A", "A") == exact_match("A.", "a") == exact_match("(A)", "A") == exact_match("!", "!") == 1
    assert f1("the", "the a") == 2 / 3


def test_sign_and_decimal_point_of_a_number_count():
    different = [("3.5", "35"), ("-5", "5"), ("−5", "5"), (".5", "5"), ("-.5", "-5"), ("-$5", "$5"), ("it is -5", "it is 5")]
    for text, reference in different:
        assert exact_match(text, reference) == exact_match(reference, text) == 0, text
        assert f1(text, reference) < 1
    same = [("5.", "5"), ("5 .", "5"), ("1,000", "1000"), ("−5", "-5"), ("- 5", "5"), ("3.5.", "3.5"), ("+5", "5")]
    for text, reference in same:
        assert exact_match(text, reference) == f1(text, reference) == 1, text
    assert exact_match("1990-2000", "19902000") == exact_match("a well-known man", "wellknown man") == 1  # as SQuAD has it


def test_the_ends_of_names_count():
    assert exact_match("C++", "C") == exact_match("C#", "C") == exact_match("C++", "C#") == exact_match("A+", "A") == 0
    assert exact_match("c++.", "C++") == exact_match("the C#", "c#") == exact_match("1+1", "11") == 1


def squad_tokens(text):
    """SQuAD 1.1's evaluation script."""
    bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def test_english_tokens_are_those_of_squad_rouge_score_and_bm25s():
    world = demo.generate(0)
    texts = [text for prompt in [*world.train, *world.valid] for text in (prompt.question, *prompt.answers)]
    texts += [passage.text for passage in world.passages] + [text for text in TEXTS if squad_tokens(text)]
    texts += [
        "It's a well-known café: 1,000 people (or more)!",
        "naïve",
        "x = y; a/b & c_d",
        "covid-19 in 1990-2000",
        "α-helix",
    ]
    searched = bm25s.tokenize(texts, stopwords="english", return_ids=False, show_progress=False)
    for text, words in zip(texts, searched, strict=True):
        assert ENGLISH.answer_tokens(text) == squad_tokens(text)
        assert ENGLISH.rouge_tokens(text) == DefaultTokenizer().tokenize(text)
        assert ENGLISH.search_tokens(text) == words
        assert ENGLISH.raw_tokens(text) == text.split()


def test_perfect_text_scores_exactly_one():
    text = "i am good , i just got off work and tired , i have two jobs ."
    assert f1(text, text) == rouge_l(text, text) == bleu(text, text) == exact_match(text, text) == 1
    assert all(bleu(text[:n], text[:n]) <= 1 for n in range(1, len(text)))


def test_rouge_l_follows_the_order_of_words():
    # LCS "i good" of 3 and 3 tokens, where all three words are shared.
    assert rouge_l("i good am .", "i am good .") == pytest.approx(2 / 3)


def test_values_equal_the_libraries_pair_by_pair():
    scorer, sentence = RougeScorer(["rouge1", "rouge2", "rougeL"]), BLEU(effective_order=True)
    for reference in filter(None, TEXTS):
        for text in TEXTS:
            expected = {name: score.fmeasure for name, score in scorer.score(reference, text).items()}
            assert rouge(text, [reference]) == expected
            assert rouge_l(text, reference) == expected["rougeL"]
            assert bleu(text, reference) == pytest.approx(sentence.sentence_score(text, [reference]).score / 100, abs=1e-15)


def test_rouge_takes_the_best_reference_of_each_type():
    references = ["b a", "a b x y z"]
    scores = rouge("a b", references)
    assert scores["rouge1"] == 1  # of the first
    assert scores["rouge2"] == pytest.approx(2 * 1 * 0.25 / 1.25)  # of the second: 1 of 1 and 1 of 4 bigrams


def test_best_takes_the_best_reference():
    assert best(f1, "yes", ["no", "yes", "maybe"]) == 1


def test_exact_match_ignores_case_punctuation_and_articles():
    assert exact_match("The Cat!", "a cat") == 1
    assert exact_match("cats", "a cat") == 0


def test_corpus_bleu_takes_ragged_references():
    texts = ["i am good today , thanks", "the dog runs in the park"]
    first, second = ("i am very good today , thanks", "i am good today"), ("a dog runs in the park",)
    expected = BLEU().corpus_score(texts, [[first[0], second[0]], [first[1], None]]).score
    assert 100 * corpus_bleu(texts, [first, second]) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 100


def test_corpus_bleu_is_unknown_where_no_text_has_four_tokens():
    assert corpus_bleu(["A", "i am good", ""], [["A"], ["i am good"], ["yes"]]) is None
    # 1 of 5 words, 0 of 3 pairs, 0 of 2 triples and 0 of 1 quadruple, smoothed to 1/5, 1/6, 1/8 and 1/8.
    expected = (1 / 5 * 1 / 6 * 1 / 8 * 1 / 8) ** 0.25
    assert corpus_bleu(["A", "i am very good"], [["A"], ["you are quite well"]]) == pytest.approx(expected)
    assert bleu("A", "A") == 1  # of one text, the orders that it has
