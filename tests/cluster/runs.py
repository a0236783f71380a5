"""What tests read of a run's folder."""

import json
from pathlib import Path
from typing import Any

from cluster import metrics


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_clock(file: Path) -> list[dict[str, Any]]:
    return [metrics.without_clock(row) for row in rows(file)]
