"""Peak memory of this process: its own apart from what it shares with others by mapping files."""

import threading
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")
EVERY_S = 0.02


class PeakMemory:
    """As a context; then own_mb and mapped_mb are the highest seen, own_before_mb what was there at its start."""

    def __init__(self) -> None:
        self.own_before_mb = self.own_mb = self.mapped_mb = 0.0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.own_before_mb = resident_mb()[0]
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while True:
            own, mapped = resident_mb()
            self.own_mb, self.mapped_mb = max(self.own_mb, own), max(self.mapped_mb, mapped)
            if self._over.wait(EVERY_S):
                return


def resident_mb() -> tuple[float, float]:
    """(own, mapped or shared) megabytes that are in memory now."""
    kilobytes = {name: value for name, _, value in (line.partition(":") for line in STATUS.read_text().splitlines())}
    own, mapped, shared = (int(kilobytes[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile", "RssShmem"))
    return own, mapped + shared
