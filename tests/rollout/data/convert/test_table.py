"""Tab-separated rows, against Python's own csv."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from rollout.data.convert.table import table_records

TEXTS = st.text('ab" \n', max_size=6) | st.text('ab" \t', max_size=6)  # a tab and a new line in one field are refused


@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), max_size=6))
def test_what_csv_writes_is_read_as_csv_reads_it(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.tsv"
    out = io.StringIO(newline="")
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows([["id", "text", "title"], *rows])
    path.write_text(out.getvalue(), newline="")
    noted = []
    found = [list(row.values()) for _, row in table_records(path, lambda *note: noted.append(note))]
    assert found == rows and noted == []


@given(st.lists(st.lists(st.text('ab"', min_size=1, max_size=3), min_size=3, max_size=3), min_size=1, max_size=4))
def test_rows_keep_their_columns_whatever_quotes_they_hold(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.tsv"
    plain = [[f"{field}x" for field in row] for row in rows]  # no field ends in a quote, so none is in quotes
    path.write_text("".join("\t".join(row) + "\n" for row in [["id", "text", "title"], *plain]))
    assert [list(row.values()) for _, row in table_records(path, lambda *_: None)] == plain
