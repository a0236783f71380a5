import pytest

from cluster.settings.lapdog_flags import translated
from rollout.errors import SettingsError


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"use_grpo": True}, {"learner.loss": "grpo"}),
        ({"reader_rl_learning": True}, {"learner.loss": "reinforce"}),
        ({"reader_rl_learning": True, "use_grpo": True}, {"learner.loss": "grpo"}),
        ({"use_grpo": True, "learner.loss": "dapo"}, {"learner.loss": "dapo"}),
        ({"grpo_group_size": "6"}, {"rollout.group_size": "6"}),
        ({"grpo_kl_coeff": "0.1", "learner.kl_coef": "0.2"}, {"learner.kl_coef": "0.2"}),
        ({"grpo_top_k_ratio": "0.5"}, {"learner.top_k_ratio": "0.5"}),
        ({"reference_model_path": "folder"}, {"learner.reference_path": "folder"}),
        ({"gold_score_mode": "f1rougebleudist"}, {"reward.mode": "lapdog"}),
        ({"gold_score_mode": "bleudist"}, {"reward.f1": 0.0, "reward.rouge": 0.0, "reward.bleu": 1.0}),
        ({"seed": "1"}, {"seed": "1"}),
    ],
)
def test_the_seeds_flags_are_translated_and_our_own_win(given, values):
    assert translated(given) == values


def test_a_gold_score_of_passages_is_refused():
    with pytest.raises(
        SettingsError, match="gold_score_mode: 'ppmean' is no reward of responses; give f1rougebleudist or bleud"
    ):
        translated({"gold_score_mode": "ppmean"})
