"""What tests read of a run's folder."""

import json
from pathlib import Path
from typing import Any

CLOCK = ("seconds", "per_s", "peak_memory_mb", "incarnation", "restarts")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_clock(file: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what no two runs share."""
    return [{key: value for key, value in row.items() if not any(word in key for word in CLOCK)} for row in rows(file)]
