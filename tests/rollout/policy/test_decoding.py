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


class Scripted:
    """Makes one token of each response near certain at each step, whatever came before; `steps`: [P][G] tokens each."""

    def __init__(self, *steps):
        self.steps, self.seen = iter(steps), []
        self.places = None

    def next_logits(self, tokens):
        self.seen.append(tokens.tolist())
        script = torch.tensor(next(self.steps))
        chosen = script if self.places is None else script.flatten()[self.places].view(tokens.shape)
        return torch.nn.functional.one_hot(chosen, 8).float() * 50

    def select(self, groups, rows):
        self.places = rows if self.places is None else self.places[rows]


class Same:
    """The same logits at every step."""

    def __init__(self, logits):
        self.logits = torch.as_tensor(logits)

    def next_logits(self, tokens):
        return self.logits.expand(*tokens.shape, -1)

    def select(self, groups, rows):
        pass


def starts(groups, size):
    return torch.zeros(groups, size, dtype=torch.long)


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
    decoded = decode(Scripted([[5, END]], [[END, 6]], [[7, 7]]), starts(1, 2), [END], Decoding(9))
    assert decoded.token_ids.tolist() == [[[5, END], [END, 0]]]
    assert decoded.lengths.tolist() == [[2, 1]]
    assert decoded.finished.tolist() == [[True, True]]


def test_what_is_cut_has_full_length_and_is_not_finished():
    decoded = decode(Scripted([[5, 3]], [[6, END]], [[7, 7]]), starts(1, 2), [END], Decoding(3))
    assert decoded.token_ids.tolist() == [[[5, 6, 7], [3, END, 0]]]
    assert decoded.lengths.tolist() == [[3, 2]]
    assert decoded.finished.tolist() == [[False, True]]


def test_any_of_the_end_tokens_ends_a_response():
    decoded = decode(Scripted([[5, 6]], [[2, END]]), starts(1, 2), [END, 2], Decoding(9))
    assert decoded.token_ids.tolist() == [[[5, 2], [6, END]]] and decoded.finished.all()


def test_the_model_sees_the_start_and_then_the_drawn_tokens():
    model = Scripted([[5, 6]], [[7, 2]], [[END, END]])
    decode(model, torch.tensor([[3, 3]]), [END], Decoding(5))
    assert model.seen == [[[3, 3]], [[5, 6]], [[7, 2]]]


def test_finished_groups_and_responses_leave_the_batch():
    # 3 groups of 4; the second is done at once, the others have two and one that go on
    first = [[END, 5, END, 6], [END] * 4, [END, END, END, 7]]
    later = [[2, 3, 2, 4], [2] * 4, [2, 2, 2, 5]]
    last = [[2, END, 2, END], [2] * 4, [2, 2, 2, END]]
    model = Scripted(first, later, last)
    decoded = decode(model, starts(3, 4), [END], Decoding(5))
    assert [np.shape(tokens) for tokens in model.seen] == [(3, 4), (2, 2), (2, 2)]
    assert model.seen[1] == [[5, 6], [7, END]]  # the finished response fills its group's second place
    assert decoded.lengths.tolist() == [[1, 3, 1, 3], [1] * 4, [1, 1, 1, 3]]
    assert decoded.token_ids[0].tolist() == [[END, 0, 0], [5, 3, END], [END, 0, 0], [6, 4, END]]
    assert decoded.token_ids[2, 3].tolist() == [7, 5, END]
    assert decoded.finished.all() and (decoded.logprobs[1, :, 1:] == 0).all()


def test_each_response_keeps_its_own_uniforms_when_others_leave():
    probabilities = torch.tensor([0.3, 0.2, 0.3, 0.2])  # token 0 ends
    uniforms = np.random.default_rng(0).random((12, 40))
    decoded = decode(Same(probabilities.log()), starts(3, 4), [0], Decoding(40, uniforms=uniforms))
    expected = np.searchsorted(np.cumsum(probabilities.double().numpy()), uniforms, side="right")
    for row, ids, length in zip(expected, decoded.token_ids.view(12, -1), decoded.lengths.flatten(), strict=True):
        assert length == row.tolist().index(0) + 1
        assert ids[:length].tolist() == row[:length].tolist()


def test_greedy_takes_the_most_probable_token_and_records_its_logprob():
    logits = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    decoded = decode(Same(logits), starts(2, 3), [99], Decoding(1, temperature=0.5))
    assert decoded.token_ids[..., 0].tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(decoded.logprobs[..., 0], torch.log_softmax(logits / 0.5, -1).amax(-1))
    assert decoded.top_p_mass == 1


def test_sampled_logprobs_are_those_of_the_full_distribution_at_the_temperature():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    uniforms = np.random.default_rng(0).random((50, 1))
    decoded = decode(Same(logits), starts(1, 50), [99], Decoding(1, temperature=2.0, top_p=0.6, uniforms=uniforms))
    expected = torch.log_softmax(logits / 2, -1)[decoded.token_ids]
    torch.testing.assert_close(decoded.logprobs, expected)
    shares = torch.softmax(logits / 2, -1)  # 0.455, 0.276, ...: two tokens hold 0.6
    assert set(decoded.token_ids.flatten().tolist()) == {0, 1}
    assert decoded.top_p_mass == pytest.approx(float(shares[:2].sum()), rel=1e-6)


def test_kept_mass_leaves_finished_responses_out():
    sure, flat = [50.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]  # half of `flat` is kept
    uniforms = np.array([[0.5, 0.5], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9]])
    logits = torch.tensor([[sure, flat, flat, flat, flat]])
    decoded = decode(Same(logits), starts(1, 5), [0], Decoding(2, top_p=0.5, uniforms=uniforms))
    assert decoded.lengths.tolist() == [[1, 2, 2, 2, 2]]
    assert decoded.top_p_mass == pytest.approx(((1 + 4 * 0.5) / 5 + 0.5) / 2)
