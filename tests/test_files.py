"""Files that cannot be written, are damaged, or belong to another process: one line each."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlcas import cli
from rlcas.errors import UserError
from rlcas.storage.atomic import check_place, exclusive_lock, read_facts, replacing, replacing_folder

PROTECTED = OSError(errno.EROFS, os.strerror(errno.EROFS))
MESSAGE = r"{} cannot be written \(Read-only file system\): make the folder writable, or work in a copy of it$"
HOLD = "import sys; from pathlib import Path; "
HOLD += "from rlcas.storage.atomic import exclusive_lock\nwith exclusive_lock(Path(sys.argv[1])): {}"


def test_a_file_on_a_read_only_disk_is_named_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=MESSAGE.format(r"x\.json")), replacing(tmp_path / "x.json"):
        raise PROTECTED
    with pytest.raises(UserError, match=MESSAGE.format("folder")), replacing_folder(tmp_path / "folder"):
        raise PROTECTED
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_folder_can_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = r"table\.csv cannot be written: .*file(/below)? cannot be a folder \(.+\); name another place$"
    for folder in ("file", "file/below"):
        with pytest.raises(UserError, match=message):
            check_place(tmp_path / folder / "table.csv")
    check_place(tmp_path / "new" / "table.csv")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_command_on_a_read_only_disk_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "figures")

    monkeypatch.setitem(cli.ALL_COMMANDS, "doctor", cli.Command("fails", fail))
    assert cli.main(["doctor"]) == 2
    line = "rlcas: [Errno 30] Read-only file system: 'figures': make the folder writable, or work in a copy of it\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ', r"facts\.json is truncated or altered \(.+\): restore or delete it$"),
        ("[]", r"facts\.json is altered \(it holds no JSON object\): restore or delete it$"),
    ],
)
def test_a_damaged_json_file_is_named_with_the_fix(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    assert read_facts(path) == {}
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_facts(path)


def test_a_folder_in_use_is_refused_and_is_free_again_after_a_kill(tmp_path: Path) -> None:
    code = HOLD.format("print('in', flush=True); sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        with (
            pytest.raises(UserError, match="is in use by another rlcas process: wait until"),
            exclusive_lock(tmp_path),
        ):
            pass
        other.kill()
    with exclusive_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
