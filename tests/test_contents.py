"""Digests of a folder's files, and copies that are checked by sha256."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlcas.errors import UserError
from rlcas.storage import digests
from rlcas.storage.atomic import sha256_of
from rlcas.storage.digests import (
    ATTEMPTS,
    CLOCK_TICKS_NS,
    NOTE_FILE,
    cache_folder,
    copied,
    digest_of,
    digests_of,
    holds,
)

FILES = {"a.npy": b"first", "below/b.npy": b"second", "below/empty": b""}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def written(folder: Path) -> Path:
    for name, content in {**FILES, ".hidden": b"x", "below/.b.npy.tmp": b"x"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


class Sender:
    """Returns the files in pieces of two bytes, the first `altered` of them with another first byte."""

    def __init__(self, altered: int = 0) -> None:
        self.sent: list[str] = []
        self._altered = altered

    def __call__(self, name: str) -> Iterator[memoryview]:
        self.sent.append(name)
        content = FILES[name]
        if len(self.sent) <= self._altered:
            content = b"?" + content[1:]
        return (memoryview(content[start : start + 2]) for start in range(0, len(content), 2))


def test_a_folders_digests_are_the_sha256_of_its_files_without_hidden_ones(tmp_path: Path) -> None:
    assert digests_of(written(tmp_path)) == DIGESTS
    assert digest_of(DIGESTS) == digest_of(dict(reversed(DIGESTS.items())))
    assert digest_of(DIGESTS) != digest_of({**DIGESTS, "c": DIGESTS["a.npy"]})


def test_files_are_hashed_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(digests, "sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    digests_of(written(tmp_path))
    later = time.time_ns() + 10 * CLOCK_TICKS_NS
    os.utime(tmp_path / NOTE_FILE, ns=(later, later))
    hashed.clear()
    assert digests_of(tmp_path) == DIGESTS and hashed == []
    before = (tmp_path / "a.npy").stat()
    (tmp_path / "a.npy").write_bytes(b"fIrst")
    os.utime(tmp_path / "a.npy", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests_of(tmp_path)["a.npy"] == hashlib.sha256(b"fIrst").hexdigest() and hashed == ["a.npy"]


@pytest.mark.parametrize("note", ["{", "[]", '{"a.npy": 3}', '{"a.npy": ["0", 5, 0, 0]}'])
def test_a_damaged_note_is_not_trusted(tmp_path: Path, note: str) -> None:
    (written(tmp_path) / NOTE_FILE).write_text(note)
    assert digests_of(tmp_path) == DIGESTS


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone is not a folder: name an existing one"):
        digests_of(tmp_path / "gone")
    assert not holds(tmp_path / "gone", DIGESTS)


def test_a_copy_is_made_once_and_has_the_same_bytes(tmp_path: Path) -> None:
    sender = Sender()
    folder = copied(DIGESTS, sender, tmp_path)
    assert folder == tmp_path / digest_of(DIGESTS) / "files"
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert copied(DIGESTS, sender, tmp_path) == folder and sender.sent == list(FILES)


def test_threads_that_need_the_same_copy_make_it_once(tmp_path: Path) -> None:
    sender, folders = Sender(), []
    threads = [
        threading.Thread(target=lambda: folders.append(copied(DIGESTS, sender, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1 and len(folders) == 4 and sender.sent == list(FILES)


def test_a_file_that_arrives_altered_is_fetched_again(tmp_path: Path) -> None:
    sender = Sender(altered=1)
    assert digests_of(copied(DIGESTS, sender, tmp_path)) == DIGESTS
    assert sender.sent == ["a.npy", *FILES]


def test_a_file_that_always_arrives_altered_is_an_error_and_leaves_no_copy(tmp_path: Path) -> None:
    sender = Sender(altered=ATTEMPTS)
    with pytest.raises(
        UserError, match=rf"a.npy arrived {ATTEMPTS} times with another sha256 than it was sent with"
    ):
        copied(DIGESTS, sender, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("change", ["alter", "remove", "add"])
def test_a_copy_that_was_changed_is_made_again(tmp_path: Path, change: str) -> None:
    folder = copied(DIGESTS, Sender(), tmp_path)
    {
        "alter": lambda: (folder / "a.npy").write_bytes(b"fIrst"),
        "remove": lambda: (folder / "a.npy").unlink(),
        "add": lambda: (folder / "more").touch(),
    }[change]()
    sender = Sender()
    assert digests_of(copied(DIGESTS, sender, tmp_path)) == DIGESTS and sender.sent == list(FILES)


def test_the_remains_of_a_killed_process_are_cleared_away(tmp_path: Path) -> None:
    remains = tmp_path / digest_of(DIGESTS) / ".files.tmp"
    remains.mkdir(parents=True)
    (remains / "a.npy").write_bytes(b"half")
    assert digests_of(copied(DIGESTS, Sender(), tmp_path)) == DIGESTS
    assert not remains.exists()


def test_the_cache_is_where_the_setting_or_the_node_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RLCAS_CACHE", raising=False)
    assert cache_folder(None) == tmp_path / ".cache/rlcas"
    monkeypatch.setenv("RLCAS_CACHE", "~/here")
    assert cache_folder(None) == tmp_path / "here"
    assert cache_folder(Path("/there")) == Path("/there")
