import pytest

from cluster.settings.places import check_absolute
from cluster.settings.tree import Settings
from cluster.training.resume_checks import check_fixed
from rollout.errors import SettingsError
from rollout.retrieval.settings import RetrieverSettings


def with_server(**settings: object) -> Settings:
    return Settings(retriever=RetrieverSettings.model_validate(settings))


def test_a_resumed_run_may_ask_another_server_otherwise_but_none_it_may_not() -> None:
    before = with_server(url="http://one:8000")
    check_fixed(before, with_server(url="http://two:8000", url_deadline_s=60, url_cache=0))
    with pytest.raises(SettingsError, match="retriever: differs from the run's own"):
        check_fixed(before, with_server())


def test_an_address_is_no_path_of_a_job() -> None:
    check_absolute(with_server(url="http://one:8000").as_used())
