import numpy as np
import pytest
import torch

from rollout.policy.decoding import Decoding, decode, draw

END = 1
DRAWS = 20_000


def draws(probabilities, top_p=1.0, count=DRAWS):
    rows = torch.tensor(probabilities).expand(count, -1)
    return draw(rows, torch.from_numpy(np.random.default_rng(0).random(count)), top_p)


def chi_square(tokens, probabilities):
    expected = np.asarray(probabilities) * len(tokens)
    observed = np.bincount(tokens.numpy(), minlength=len(expected))
    return float((np.square(observed - expected) / expected).sum())


def scripted(*columns):
    """next_logits that make one token of each row near certain at each step, whatever came before."""
    steps = iter(columns)

    def next_logits(tokens):
        return torch.nn.functional.one_hot(torch.tensor(next(steps)), 8).float() * 50

    return next_logits


def starts(count):
    return torch.zeros(count, dtype=torch.long)


def test_draws_follow_the_distribution():
    probabilities = [0.05, 0.4, 0.25, 0.2, 0.1]
    tokens, kept = draws(probabilities)
    assert chi_square(tokens, probabilities) < 18.5  # the 0.1 % quantile at 4 degrees of freedom
    torch.testing.assert_close(kept, torch.ones_like(kept))


def test_a_token_of_zero_probability_is_never_drawn():
    tokens, _ = draws([0.0, 0.5, 0.0, 0.5, 0.0])
    assert set(tokens.tolist()) == {1, 3}


@pytest.mark.parametrize("probabilities", [[0.0, 1.0, 0.0], [0.0, 0.3, 0.7, 0.0], [0.0, 0.1, 0.2, 0.7000001, 0.0]])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(probabilities):
    rows = torch.tensor([probabilities, probabilities])
    tokens, _ = draw(rows, torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64), 1.0)
    assert tokens.tolist() == [1, len(probabilities) - 2]


def test_a_uniform_picks_the_token_whose_share_of_the_interval_holds_it():
    rows = torch.tensor([[0.25, 0.5, 0.25]]).expand(5, -1)
    tokens, _ = draw(rows, torch.tensor([0.0, 0.2, 0.25, 0.7, 0.8], dtype=torch.float64), 1.0)
    assert tokens.tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("top_p", "kept_tokens", "mass"),
    [(0.3, [1], 0.4), (0.41, [1, 3], 0.7), (0.7001, [1, 3, 2], 0.9), (0.95, [0, 1, 2, 3], 1.0)],
)
def test_top_p_keeps_the_smallest_set_that_holds_it_and_reports_its_mass(top_p, kept_tokens, mass):
    probabilities = np.array([0.1, 0.4, 0.2, 0.3])
    tokens, kept = draws(probabilities.tolist(), top_p)
    assert set(tokens.tolist()) == set(kept_tokens)
    np.testing.assert_allclose(kept, mass, rtol=1e-6)
    order = sorted(kept_tokens)
    positions = torch.tensor([order.index(token) for token in tokens.tolist()])
    assert chi_square(positions, probabilities[order] / probabilities[order].sum()) < 16.3  # 0.1 % at 3 degrees


def test_rows_of_a_nucleus_are_cut_apart():
    rows = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])
    tokens, kept = draw(rows, torch.tensor([0.99, 0.01], dtype=torch.float64), 0.5)
    assert tokens.tolist() == [0, 2]
    np.testing.assert_allclose(kept, [0.9, 0.9], rtol=1e-6)


def test_decoding_stops_when_all_are_finished_and_lengths_count_the_end_token():
    decoded = decode(scripted([5, END], [END, 6], [7, 7]), starts(2), END, Decoding(9))
    assert decoded.token_ids.tolist() == [[5, END], [END, 6]]
    assert decoded.lengths.tolist() == [2, 1]
    assert decoded.finished.tolist() == [True, True]


def test_what_is_cut_has_full_length_and_is_not_finished():
    decoded = decode(scripted([5, 3], [6, END], [7, 7]), starts(2), END, Decoding(3))
    assert decoded.token_ids.shape == (2, 3)
    assert decoded.lengths.tolist() == [3, 2]
    assert decoded.finished.tolist() == [False, True]


def test_a_second_end_token_does_not_count():
    decoded = decode(scripted([END, 5], [END, 6], [END, END]), starts(2), END, Decoding(3))
    assert decoded.lengths.tolist() == [1, 3]


def test_next_logits_sees_the_start_and_then_the_drawn_tokens():
    seen, script = [], scripted([5, 6], [7, 2], [END, END])

    def next_logits(tokens):
        seen.append(tokens.tolist())
        return script(tokens)

    decode(next_logits, torch.tensor([3, 3]), END, Decoding(5))
    assert seen == [[3, 3], [5, 6], [7, 2]]


def test_greedy_takes_the_most_probable_token_and_records_its_logprob():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    decoded = decode(lambda tokens: logits, starts(4), 99, Decoding(1, temperature=0.5))
    assert decoded.token_ids[:, 0].tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(decoded.logprobs[:, 0], torch.log_softmax(logits / 0.5, -1).amax(-1))
    assert decoded.kept_mass == 1


def test_sampled_logprobs_are_those_of_the_full_distribution_at_the_temperature():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(50, -1)
    uniforms = np.random.default_rng(0).random((50, 1))
    decoded = decode(lambda tokens: logits, starts(50), 99, Decoding(1, temperature=2.0, top_p=0.6, uniforms=uniforms))
    expected = torch.log_softmax(logits / 2, -1).gather(-1, decoded.token_ids)
    torch.testing.assert_close(decoded.logprobs, expected)
    shares = torch.softmax(logits[0] / 2, -1)  # 0.455, 0.276, ...: two tokens hold 0.6
    assert set(decoded.token_ids[:, 0].tolist()) == {0, 1}
    assert decoded.kept_mass == pytest.approx(float(shares[:2].sum()), rel=1e-6)


def test_kept_mass_leaves_finished_responses_out():
    sure, flat = [50.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]  # half of `flat` is kept
    uniforms = np.array([[0.5, 0.5], [0.9, 0.9]])
    decoded = decode(lambda tokens: torch.tensor([sure, flat]), starts(2), 0, Decoding(2, top_p=0.5, uniforms=uniforms))
    assert decoded.lengths.tolist() == [1, 2]
    assert decoded.kept_mass == pytest.approx(((1 + 0.5) / 2 + 0.5) / 2)
