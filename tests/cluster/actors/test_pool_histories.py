import pytest


@pytest.mark.parametrize("histories", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_history_of_a_pool_loses_a_call_or_a_replica(histories: int) -> None:
    from hypothesis import HealthCheck, settings  # takes a second, in each process that collects tests
    from hypothesis.stateful import run_state_machine_as_test

    from tests.cluster.actors.pool_history import PoolHistory

    quietly = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
    run_state_machine_as_test(PoolHistory, settings=settings(max_examples=histories, stateful_step_count=40, **quietly))
