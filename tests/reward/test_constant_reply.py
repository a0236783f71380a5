import numpy as np
import pytest

from reward.constant_reply import best_constant_reply
from reward.metrics import TextMetrics, best
from rollout.text import ENGLISH, TextRules
from rollout.types import Prompt

WORDS = "i you am are good the a dog . , ? work read !".split()
METRICS = TextMetrics(ENGLISH)


def random_prompts(seed, n=60, longest=8):
    rng = np.random.default_rng(seed)
    answers = [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(2 * n)]
    return [Prompt(id=str(i), question="?", answers=tuple(answers[2 * i : 2 * i + 1 + i % 2])) for i in range(n)]


def brute_force(prompts, seed, n_candidates, n_examples):
    answers = list(dict.fromkeys(answer for prompt in prompts for answer in prompt.answers))
    rng = np.random.default_rng(seed)
    candidates = [answers[i] for i in rng.choice(len(answers), min(n_candidates, len(answers)), replace=False)]
    examples = [prompts[i] for i in rng.choice(len(prompts), min(n_examples, len(prompts)), replace=False)]
    scores = [
        np.mean([best(METRICS.f1, c, p.answers) + best(METRICS.rouge_l, c, p.answers) for p in examples]) for c in candidates
    ]
    return candidates[int(np.argmax(np.round(scores, 10)))]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("n_candidates", "n_examples"), [(600, 400), (20, 10)])
def test_equals_brute_force(seed, n_candidates, n_examples):
    prompts = random_prompts(seed)
    expected = brute_force(prompts, seed, n_candidates, n_examples)
    assert best_constant_reply(prompts, seed, n_candidates, n_examples) == expected


@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force_on_long_answers(seed):
    prompts = random_prompts(seed, n=20, longest=100)
    assert best_constant_reply(prompts, seed) == brute_force(prompts, seed, 600, 400)


def test_first_candidate_wins_a_tie():
    # The same words for every metric, so all candidates are equally good.
    prompts = [Prompt(id=str(i), question="?", answers=(answer,)) for i, answer in enumerate(["hi .", "hi", "hi !", "Hi ?"])]
    first = int(np.random.default_rng(5).choice(4, 4, replace=False)[0])
    assert best_constant_reply(prompts, seed=5) == prompts[first].answers[0]


def test_blank_and_wordless_answers_do_no_harm():
    prompts = [Prompt(id=str(i), question="?", answers=(answer,)) for i, answer in enumerate(["", "...", "yes", "yes sir"])]
    assert best_constant_reply(prompts, seed=0) in ("yes", "yes sir")
    assert best_constant_reply(prompts[:2], seed=0) == "..."


def test_the_words_of_candidates_are_those_of_the_language():
    answers = ["猫在家。", "猫在花园里。", "狗不在花园里。"]
    prompts = [Prompt(id=str(i), question="?", answers=(answer,)) for i, answer in enumerate(answers)]
    assert best_constant_reply(prompts, seed=0, rules=TextRules.of("zh")) == "猫在花园里。"


def test_no_answer_at_all_is_refused():
    with pytest.raises(ValueError, match="answer"):
        best_constant_reply([Prompt(id="0", question="?", answers=())], seed=0)
