import pytest

from benchmarks.retrieve_server import measured


@pytest.mark.slow
def test_two_hundred_clients_lose_nothing_and_memory_stays() -> None:
    result = measured(clients=200, seconds=20, size=5_000)
    early, late = result["memory_mb"]
    assert result["problems"] == {} and result["answered"] > 200
    assert late < early + 20
