"""What a run says on the terminal: a line per step, a bar where somebody watches, a table at the end."""

import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from tqdm import tqdm

from cluster.output import print_out
from cluster.store.metrics import EVALUATION_COLUMNS
from cluster.store.rows import Row, best_of, held_out_figures, json_line, summary_rows
from cluster.store.run_folder import RunFolder
from cluster.watch.monitor import Ending, Monitor

MEASURED_OTHERWISE = "        measured otherwise from here on, not to be compared with the lines above"
OutputMode = Literal["lines", "quiet", "json"]


class Terminal(Monitor):
    """quiet: nothing but the end. json: one object a line, of metrics.jsonl or evaluations.jsonl or {"event": text}."""

    def __init__(self, folder: RunFolder, last_step: int, output_mode: OutputMode = "lines"):
        self._folder, self._last_step, self._output_mode = folder, last_step, output_mode
        self.output_lost: OSError | None = None
        self._bar: tqdm[Any] | None = None

    async def start(self) -> None:
        self.event({"text": f"run folder: {self._folder.path}"})

    def event(self, row: Row) -> None:
        self._write(row["text"], {"event": row["text"]})

    def step(self, row: Row) -> None:
        self._write(step_line(row), row)
        if self._bar is None:
            watched = self._output_mode == "lines" and sys.stderr.isatty()
            start = {"total": self._last_step, "initial": row["step"] - 1, "unit": "step"}
            self._bar = tqdm(**start, disable=not watched, leave=False, dynamic_ncols=True, mininterval=0)
        self._bar.update(row["step"] - self._bar.n)

    async def evaluation(self, row: Row) -> None:
        self._write(evaluation_line(row), row)

    async def finish(self, ending: Ending) -> None:
        """Say in every mode what the run achieved, and where everything lies."""
        self.close()
        folder, evaluations = self._folder, self._folder.evaluation_rows()
        best = best_of(evaluations).step
        policy = folder.checkpoints / ("best" if best else "latest") / "policy"
        lines = [f"stopped at step {ending.step}: {ending.stop_reason}"] if ending.stop_reason else []
        lines += [evaluation_table(evaluations)] if evaluations else []
        lines += [f"report:       {folder.report}", f"run folder:   {folder.path}"]
        lines += [f"best policy:  {policy} (step {best})" if best else f"last policy:  {policy}"]
        lines += [f"go on with:   {ending.resume}"] if ending.stop_reason else []
        row = {"run_dir": str(folder.path), "step": ending.step, "stopped": ending.stop_reason, "best_step": best}
        self._print(json_line(row) if self._output_mode == "json" else "\n".join(lines))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _write(self, line: str, row: Row) -> None:
        if self._output_mode != "quiet":
            self._print(json_line(row) if self._output_mode == "json" else line)

    def _print(self, text: str) -> None:
        try:
            print_out(text)
        except OSError as error:  # Ctrl-C behind `| tee` ends tee, too, a disk is full: the run is still to be saved
            self.output_lost = error


def step_line(row: Row) -> str:
    """`row` is a line of metrics.jsonl."""
    parts = [f"{row['stage']:>10} {row['step']:>6}", f"loss {round(row['loss'], 4) + 0.0:8.4f}"]  # no -0.0000
    if row["reward"] is not None:
        parts += [f"reward {row['reward']:6.3f} ± {row['reward_std']:5.3f}"]
        parts += [] if row["kl"] is None else [f"kl {row['kl']:7.4f}"]
        parts += [f"entropy {row['entropy']:5.2f}", f"lag {row['staleness_mean']:3.1f}"]
    parts += [f"grad {row['grad_norm']:6.2f}", f"lr {row['lr']:.1e}", f"{row['seconds_step']:6.2f} s"]
    return _fitted(parts, ("lag", "lr", "grad", "loss", "entropy"))


def evaluation_line(row: Row) -> str:
    """`row` is a line of evaluations.jsonl; a line here for each set and its draws."""
    lines = []
    for whose, own in held_out_figures(row):
        figures = [f"{name} {own[name]:.2f}" for name in EVALUATION_COLUMNS if own.get(name) is not None]
        parts = [f"{'held-out':>10} {row['step']:>6}", *filter(None, [whose]), *figures]
        lines.append(_fitted(parts, ("recall@5", "distinct2", "exact_match", "unique_replies", "gap_closed")))
    return "\n".join(lines)


def _fitted(parts: Sequence[str], left_out: Sequence[str]) -> str:
    """Without what does not fit into the terminal, the least important first."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    for name in left_out:
        if len("  ".join(parts)) > width:
            parts = [part for part in parts if not part.startswith(f"{name} ")]
    return "  ".join(parts)


def evaluation_table(rows: Sequence[Row]) -> str:
    """Held-out figures, one line per evaluation (the `summary_rows` of many), set and its draws, the constant reply beneath."""
    shown = summary_rows(rows)
    last = held_out_figures(rows[-1]) if rows else []
    floors = [(f"constant reply {name}".strip(), own["constant_reply"]) for name, own in last if own.get("constant_reply")]
    of_rows = [
        (row, f"{row.get('stage') or ''} {name}".strip() if own is row else name, own)
        for row in shown
        for name, own in held_out_figures(row)
    ]
    told = [own for _, _, own in of_rows] + [own for _, own in floors]
    columns = [name for name in EVALUATION_COLUMNS if any(own.get(name) is not None for own in told)]
    widths = [max(6, len(name)) + 2 for name in columns]
    label = max([14, *(len(name) for _, name, _ in of_rows), *(len(name) for name, _ in floors)])

    def line(step: object, name: str, cells: Iterable[str]) -> str:
        figures = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{step:>6}  {name:<{label}}{figures}".rstrip()

    def cells(figures: Mapping[str, Any]) -> Iterator[str]:
        values = (figures.get(name, "") for name in columns)  # of a constant reply and of draws some are not asked for
        return ("–" if value is None else "" if value == "" else f"{value:.2f}" for value in values)

    lines = [line("step", "stage", columns)]
    measure = shown[0].get("measure") if shown else None
    for row, name, own in of_rows:
        if row.get("measure") != measure:
            measure = row.get("measure")
            lines.append(MEASURED_OTHERWISE)
        lines.append(line(row["step"] if own is row else "", name, cells(own)))
    lines += [line("", name, cells(own)) for name, own in floors]
    lines += [f"constant reply: {own['text']!r}" for _, own in floors[:1]]
    return "\n".join(lines)
