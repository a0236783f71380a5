"""A report as one HTML file that opens offline. What a model wrote is data to it: no script but its own may run."""

import base64
import hashlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from string import Template

from cluster.report.data import report_data
from rollout.errors import DISK_REMEDY, writing

HERE = Path(__file__).parent
# in the order in which they need each other
SCRIPTS = ("elements", "chart", "overview", "words", "responses", "groups", "incidents", "settings", "main")


def write_report(paths: Sequence[Path], target: Path) -> None:
    """Write what runs in these folders did to `target`. Raises CheckpointError if that cannot be written."""
    html = page(json.dumps(report_data(paths), ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # the run itself may write it at the same time
    with writing(target, DISK_REMEDY):
        try:
            draft.write_text(html, encoding="utf-8", errors="replace")  # half a surrogate pair, as in a folder's name
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def page(data: str) -> str:
    """data: JSON text."""
    script = "\n".join(_read(f"js/{name}.js") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_read("report.html")).substitute(
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:",
        style=_read("report.css"),
        script=script,
        data=data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    )


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
