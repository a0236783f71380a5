"""`report`: what one run did, or several beside each other, as one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from cluster.flags import build, parse_flags
from cluster.report.page import write_report
from cluster.run_folder import RunFolder, writable
from rollout.config import Section
from rollout.errors import SettingsError


class ReportOptions(Section):
    output: Path | None = Field(None, description="HTML file to write; default: report.html, in the run or, for several, here")


def report(argv: Sequence[str]) -> None:
    """RUN [RUN ...]: curves, held-out figures, sampled groups, what befell the runs, settings; several runs are compared."""
    runs = [Path(text) for text in argv[: _first_flag(argv)]]
    options = build(ReportOptions, parse_flags("report RUN [RUN ...]", report.__doc__, [ReportOptions], argv[len(runs) :]))
    if not runs:
        raise SettingsError("report: names no run; give the folder of one, or of several to compare them")
    target = options.output or (RunFolder.existing(runs[0]).report if len(runs) == 1 else Path("report.html"))
    if len(runs) > 1 or options.output is not None:
        writable(target)
    write_report(runs, target)
    print(f"wrote {target}: open it in a browser")


def _first_flag(argv: Sequence[str]) -> int:
    return next((place for place, text in enumerate(argv) if text.startswith("-")), len(argv))
