from pathlib import Path

from cluster.commands.policy_source import open_policy
from tests.rollout.tiny import tiny_policy


def test_a_plain_folder_reads_passages_without_training_data(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path / "policy")
    opened = open_policy(tmp_path / "policy", {"policy.n_context": "2"}, passages=(tmp_path / "passages.jsonl",))
    assert opened.state is None and opened.path == str(tmp_path / "policy")
    assert opened.settings.data.passages == (tmp_path / "passages.jsonl",) and opened.settings.data.train is None
    assert opened.settings.policy.n_context == 2 and opened.settings.policy.prompt_template is not None
