import os
from pathlib import Path

from cluster.store.run_folder import RunFolder


def test_evaluations_are_read_again_only_where_their_file_has_changed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.evaluation_rows() == []
    folder.append(folder.evaluations, {"step": 1, "reward": 2.0})
    assert folder.evaluation_rows() == [{"step": 1, "reward": 2.0}]
    read = folder.evaluations.stat()
    with folder.evaluations.open("r+") as file:
        file.write('{"step": 1, "reward": 3.0}')
    os.utime(folder.evaluations, ns=(read.st_atime_ns, read.st_mtime_ns))
    assert folder.evaluation_rows() == [{"step": 1, "reward": 2.0}]
    folder.append(folder.evaluations, {"step": 2, "reward": 4.0})
    assert [row["reward"] for row in folder.evaluation_rows()] == [3.0, 4.0]
    folder.truncate(1)
    assert [row["step"] for row in folder.evaluation_rows()] == [1]
    folder.truncate(0)
    assert folder.evaluation_rows() == []
