from pathlib import Path

from cluster.actors.retry_policy import RetryPolicy, documented
from cluster.settings.actor_settings import ClusterSettings

RECOVERY = Path(__file__).parents[3] / "docs" / "recovery.md"


def test_pauses_double_up_to_the_longest() -> None:
    policy = RetryPolicy(first_pause_s=0.5, longest_pause_s=3.0)
    assert [policy.pause_s(losses) for losses in range(6)] == [0, 0.5, 1, 2, 3, 3]
    assert RetryPolicy().pause_s(1000) == 30


def test_a_call_of_several_prompts_is_given_to_several_actors_and_that_of_a_lone_prompt_to_one() -> None:
    policy = RetryPolicy(call_attempts=4)
    assert [policy.attempts(prompts) for prompts in (1, 2, 8)] == [1, 4, 4]


def test_the_deadlines_are_those_of_the_settings_and_their_defaults_the_same() -> None:
    policy = RetryPolicy.of(ClusterSettings(start_deadline_s=7, call_deadline_s=8))
    assert (policy.start_deadline_s, policy.call_deadline_s) == (7, 8)
    assert RetryPolicy.of(ClusterSettings()) == RetryPolicy()


def test_the_documented_table_is_the_policy_itself() -> None:
    assert documented() in RECOVERY.read_text(encoding="utf-8")
