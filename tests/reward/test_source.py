"""The code behind a user's own reward, told apart by its content."""

from pathlib import Path

import pytest

from reward.config import ExtraReward
from reward.extra import import_reward
from reward.source import source_digest

FILES = {
    "one_judge.py": "from one_words import LIMIT\nimport json\n\ndef judge(prompt, passages, responses):\n    return [LIMIT]\n",
    "one_words.py": "LIMIT = 1\n",
    "one_other.py": "LIMIT = 1\n",
    "one_package/inner/judge.py": "def judge(prompt, passages, responses):\n    from ..parts import many\n    return many()\n",
    "one_package/parts/__init__.py": "from .few import few as many\n",
    "one_package/parts/few.py": "few = list\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("function", "of_it"),
    [
        ("one_judge:judge", {"one_judge.py", "one_words.py"}),
        ("one_package.inner.judge:judge", {name for name in FILES if name.startswith("one_package")}),
    ],
)
def test_a_reward_is_another_where_its_module_is_or_what_it_imports_from_beside_it(
    function: str, of_it: set[str], folder: Path
) -> None:
    extra = ExtraReward(function=function)
    import_reward(extra)
    digests = [source_digest(extra)]
    for name in FILES:
        (folder / name).write_text(FILES[name] + "# another\n")
        digests.append(source_digest(extra))
        assert (digests[-1] != digests[-2]) == (name in of_it), name


def test_a_reward_of_a_compiled_module_has_a_digest() -> None:
    assert source_digest(ExtraReward(function="math:sqrt")) == source_digest(ExtraReward(function="math:sqrt"))
