import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from reward.metrics import best, bleu, corpus_bleu, exact_match, f1, raw_f1, rouge, rouge_l

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


def test_texts_without_words_share_nothing():
    assert f1(".", "...") == f1("the", "a") == 0


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
