"""A report as one HTML file that opens offline. What a model wrote is data to it: no script but its own may run."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

from cluster.report.data import report_data
from rollout.errors import writing

HERE = Path(__file__).parent


def write_report(paths: Sequence[Path], target: Path) -> None:
    """Write what runs in these folders did to `target`. Raises CheckpointError if that cannot be written."""
    html = page(json.dumps(report_data(paths), ensure_ascii=False, separators=(",", ":")))
    draft = target.with_name(f".{target.name}.tmp")
    with writing(target):
        draft.write_text(html, encoding="utf-8")
        draft.replace(target)


def page(data: str) -> str:
    """data: JSON text."""
    script, style = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((HERE / "report.html").read_text(encoding="utf-8")).substitute(
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:",
        style=style,
        script=script,
        data=data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    )
