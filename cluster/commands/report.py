"""`report`: what one run did, or several beside each other, as one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from cluster.output import print_err, print_out
from cluster.report.page import write_report
from cluster.settings.flags import flags_of, parse_flags
from cluster.settings.values import build
from cluster.store.run_folder import RunFolder, check_writable
from rollout.config import Section
from rollout.errors import SettingsError


class ReportOptions(Section):
    runs: tuple[Path, ...] = ()
    output: Path | None = Field(None, description="HTML file to write; default: report.html, in the run or, for several, here")


def report(argv: Sequence[str]) -> None:
    """RUN [RUN ...]: curves, held-out figures, sampled groups, incidents, settings; several runs are compared."""
    flags = flags_of(ReportOptions, only=("output",))
    options = build(ReportOptions, parse_flags("report RUN [RUN ...]", report.__doc__, argv, flags, alone="runs"))
    runs = list(options.runs)
    if len(runs) > 1:
        runs = [run for run in dict.fromkeys(run.resolve() for run in runs) if _holds_a_run(run)]
    if not runs:
        raise SettingsError("report: names no run; give the folder of one, or of several to compare them")
    target = options.output or (RunFolder.existing(runs[0]).report if len(runs) == 1 else Path("report.html"))
    if target.is_file() and target.suffix not in (".html", ".htm"):
        raise SettingsError(f"output: {target} is there and ends in {target.suffix!r}; name a .html file")
    if len(runs) > 1 or options.output is not None:
        check_writable(target, [])
    write_report(runs, target)
    print_out(f"wrote {target}: open it in a browser")


def _holds_a_run(path: Path) -> bool:
    """What lies beside runs, as `runs/*` names it, is told of and left out; what is not there at all is a mistake for later."""
    if (path / "config.yaml").is_file() or not path.exists():
        return True
    print_err(f"{path}: holds no run (no config.yaml); left out")
    return False
