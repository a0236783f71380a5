"""The pictures of reports in docs/images.

    python -m tests.pictures RUN OTHER_RUN

Those of the dashboard come from `pytest tests/cluster/watch/test_dashboard.py --pictures docs/images`.
"""

import sys
import tempfile
from pathlib import Path

from cluster.report.page import write_report
from tests.browser import PHONE, opened

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def take(run: Path, other: Path) -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        one, both = Path(folder) / "one.html", Path(folder) / "both.html"
        write_report([run], one)
        write_report([run, other], both)
        with opened(f"file://{one}", height=1080) as page:
            page.screenshot(path=IMAGES / "report.png")
            page.get_by_label("Order").select_option("spread")
            page.locator("#groups article details").first.click()
            page.evaluate("document.querySelector('#groups .pager').scrollIntoView()")
            group = page.locator("#groups article").first.bounding_box()
            assert group is not None
            clip = {"x": 0, "y": 0, "width": 1200, "height": group["y"] + group["height"] + 16}
            page.screenshot(path=IMAGES / "report-groups.png", clip=clip)  # type: ignore[arg-type]
        with opened(f"file://{one}", colours="dark", height=800) as page:
            page.evaluate("document.querySelector('#curves h3').scrollIntoView()")
            page.screenshot(path=IMAGES / "report-dark.png")
        with opened(f"file://{one}", width=PHONE, height=844) as page:
            page.screenshot(path=IMAGES / "report-phone.png")
        with opened(f"file://{both}", height=1000) as page:
            page.evaluate("document.querySelector('#curves h3').scrollIntoView()")
            page.screenshot(path=IMAGES / "report-compared.png")


if __name__ == "__main__":
    take(*map(Path, sys.argv[1:3]))
