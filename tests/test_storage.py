"""Addresses in place of paths: which files are fetched and published, and in which order."""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
import small_run
from data_files import config, gray, write_image, write_npz
from saved_run import save_run
from test_run import rlcas
from tiny import tiny_config

from rlcas.cli import main
from rlcas.data import load
from rlcas.errors import UserError
from rlcas.runs.paths import absolute_data, data_name, resolved
from rlcas.storage import remote
from rlcas.storage.atomic import write_text
from rlcas.storage.remote import address_of, fetched, local, publish
from rlcas.storage.store import put_file

ADDRESS = "memory://bucket/run"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fsspec.AbstractFileSystem:
    """An object store in this process, and a cache of its own."""
    monkeypatch.setenv("RLCAS_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    return store


def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLCAS_CACHE", str(tmp_path / "other cache"))


def stored(store: fsspec.AbstractFileSystem) -> dict[str, bytes]:
    return {path.removeprefix("/bucket/run/"): store.cat_file(path) for path in store.find("/bucket/run")}


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("s3://bucket/a b/run", "s3://bucket/a b/run"),
        (Path("s3://bucket/run"), "s3://bucket/run"),
        (Path("gs://bucket"), "gs://bucket"),
        (Path("file:///data/run"), "file:///data/run"),
        (Path("memory://a/b"), "memory://a/b"),
        ("runs/a", None),
        (Path("/runs/a:b"), None),
        ("npz:/data/x.npz", None),
        ("C:/data", None),
        ("", None),
    ],
)
def test_an_address_is_recognised_even_after_it_was_a_path(place: str | Path, address: str | None) -> None:
    assert address_of(place) == address


def test_settings_keep_addresses_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        absolute_data("npz:s3://b/x.npz") == "npz:s3://b/x.npz"
        and absolute_data("npz:x.npz") == f"npz:{tmp_path}/x.npz"
    )
    assert data_name("folder:gs://b/shapes") == "shapes"
    for pool in ("s3://b/pool", "folder:s3://b/pool"):
        assert resolved(tiny_config().model_copy(update={"pool": pool})).pool == pool
    out = resolved(tiny_config().model_copy(update={"out": Path("s3://b/run")})).out
    assert out is not None and out.is_absolute() and "s3:" not in str(out)


def test_images_at_an_address_are_those_of_the_file(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    name = write_npz(tmp_path)
    memory.put_file(name.removeprefix("npz:"), "/bucket/set.npz")
    by_path, by_address = load(config(name)), load(config("npz:memory://bucket/set.npz"))
    assert (by_address.name, by_address.class_names) == (by_path.name, by_path.class_names)
    np.testing.assert_array_equal(by_path.train.images_NCHW, by_address.train.images_NCHW)


def test_folders_and_tables_at_an_address_are_fetched_with_their_images(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    lines = ["path,label"]
    for number in range(24):
        name = f"{'ab'[number % 2]}/{number}.png"
        write_image(tmp_path / "set" / name, gray(number))
        lines.append(f"{name},{name[0]}")
    (tmp_path / "set/table.csv").write_text("\n".join(lines))
    memory.put(str(tmp_path / "set"), "/bucket/set", recursive=True)
    by_table = load(config("csv:memory://bucket/set/table.csv"))
    memory.rm_file("/bucket/set/table.csv")
    by_folder = load(config("folder:memory://bucket/set"))
    for data in (by_table, by_folder):
        assert data.class_names == ("a", "b") and len(data.train) + len(data.val) > 12


def test_a_file_is_fetched_once_and_again_when_it_changes(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/bucket/x/y.npz", b"one")
    file = fetched("memory://bucket/x/y.npz", None)
    assert (file.name, file.read_bytes()) == ("y.npz", b"one")
    inode = file.stat().st_ino
    assert fetched("memory://bucket/x/y.npz", None) == file and file.stat().st_ino == inode
    memory.pipe_file("/bucket/x/y.npz", b"two")
    assert fetched("memory://bucket/x/y.npz", None).read_bytes() == b"two"
    file.write_bytes(b"2 altered")
    assert fetched("memory://bucket/x/y.npz", None).read_bytes() == b"two"


def test_a_path_is_left_alone(tmp_path: Path) -> None:
    assert fetched(str(tmp_path), None) == tmp_path and local(tmp_path) == tmp_path
    publish(tmp_path)


def test_an_address_that_cannot_be_read_is_an_error_of_one_line(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"^memory://bucket/gone does not exist or is empty: correct the address$"
    ):
        fetched("memory://bucket/gone", None)
    with pytest.raises(
        UserError, match=r"nosuch://x is not an address that fsspec knows .*: correct the address$"
    ):
        fetched("nosuch://x", None)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://b/x needs a package .*pip install 'rlcas\[remote\]'"):
        fetched("s3://b/x", None)
    memory.pipe_file("/bucket/x", b"one")
    monkeypatch.setattr(type(memory), "get_file", lambda *_: (_ for _ in ()).throw(ConnectionError("reset")))
    with pytest.raises(UserError, match=r"x cannot be read \(ConnectionError: reset\): check the address"):
        fetched("memory://bucket/x", None)


def test_a_file_that_is_cut_off_on_the_way_does_not_count(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe_file("/bucket/x", b"one")
    monkeypatch.setattr(type(memory), "get_file", lambda self, path, here: Path(here).write_bytes(b"o"))
    with pytest.raises(UserError, match=r"cannot be read \(OSError: x arrived with 1 bytes, not 3\)"):
        fetched("memory://bucket/x", None)


@pytest.mark.parametrize("command", ["resume", "evaluate", "report", "predict"])
def test_a_password_in_an_address_is_refused_and_not_printed(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["image.png"] if command == "predict" else []
    assert main([command, "s3://KEY:hunter2@bucket/run", *words]) == 2
    printed = capsys.readouterr().err
    assert "s3://***@bucket/run has a password or key in its address" in printed and "hunter2" not in printed


def begun(memory: fsspec.AbstractFileSystem) -> Path:
    folder = remote.working_folder(ADDRESS, None)
    remote.begin(ADDRESS, folder)
    return folder


def write_epoch(folder: Path, epoch: int) -> None:
    """Write an epoch's files, its log line first, and remove the checkpoint before the last."""
    with (folder / "epochs.jsonl").open("a") as file:
        file.write(f"{epoch}\n")
    for name in ("state.json", "best.safetensors", "incumbent.safetensors", "sha256.json"):
        write_text(folder / f"checkpoints/epoch-{epoch:04d}" / name, f"{name} of {epoch}")
    for old in folder.glob(f"checkpoints/epoch-{epoch - 2:04d}/*"):
        old.unlink()


def test_a_reader_finds_a_whole_checkpoint_with_its_epochs_at_any_moment(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, moments = begun(memory), []
    write_text(folder / "config.yaml", "seed: 0\n")
    write_text(folder / "prepared/data.json", "{}")
    write_text(folder / "prepared/train_images.npy", "images")
    for method in ("pipe_file", "rm_file"):
        plain = getattr(type(memory), method)

        def seen(self: object, *words: object, plain=plain, **named: object) -> None:
            plain(self, *words, **named)
            moments.append(stored(memory))

        monkeypatch.setattr(type(memory), method, seen)
    for epoch in range(1, 5):
        write_epoch(folder, epoch)
        publish(folder / "checkpoints")
    assert len(moments) >= 4 * 5
    for files in moments:
        whole = [name.split("/")[1] for name in files if name.endswith("sha256.json")]
        for checkpoint in whole[-1:]:
            parts = {name for name in files if name.startswith(f"checkpoints/{checkpoint}/")}
            assert len(parts) == 4 and "prepared/train_images.npy" in files and "prepared/data.json" in files
            assert len(files["epochs.jsonl"].splitlines()) >= int(checkpoint.removeprefix("epoch-"))
    assert {name.split("/")[1] for name in stored(memory) if name.startswith("checkpoints/")} == {
        "epoch-0003",
        "epoch-0004",
    }


def test_another_machine_fetches_what_was_published_and_continues(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begun(memory)
    write_epoch(first, 1)
    publish(first)
    write_text(first / "epochs.jsonl", "never published")
    with monkeypatch.context() as elsewhere:
        another_machine(tmp_path, elsewhere)
        second = local(Path(ADDRESS))
        assert second != first and (second / "epochs.jsonl").read_text() == "1\n"
        write_epoch(second, 2)
        publish(second)
    assert local(Path(ADDRESS)) == first and (first / "epochs.jsonl").read_text() == "1\n2\n"
    assert (first / "checkpoints/epoch-0002/sha256.json").read_text() == "sha256.json of 2"


def test_only_what_changed_is_published(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, put = begun(memory), []
    write_text(folder / "config.yaml", "seed: 0\n")
    publish(folder)
    plain = remote.put_file
    monkeypatch.setattr(remote, "put_file", lambda *words: put.append(words[1].name) or plain(*words))
    publish(folder)
    assert put == []
    write_text(folder / "report.html", "page")
    publish(folder)
    assert put == ["report.html"] and not [name for name in stored(memory) if Path(name).name.startswith(".")]


def test_files_that_arrived_before_a_failure_are_not_published_again(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, put = begun(memory), []
    for name in ("a.txt", "b.txt", "c.txt"):
        write_text(folder / name, name)
    plain = remote.put_file

    def failing(store: object, file: Path, path: str) -> None:
        if file.name == "b.txt" and "b.txt" not in put:
            put.append(file.name)
            raise ConnectionError("network gone")
        put.append(file.name)
        plain(store, file, path)

    monkeypatch.setattr(remote, "put_file", failing)
    with pytest.raises(UserError, match="network gone"):
        publish(folder)
    publish(folder)
    assert put == ["a.txt", "b.txt", "b.txt", "c.txt"]
    assert {name for name in stored(memory) if name.endswith(".txt")} == {"a.txt", "b.txt", "c.txt"}


def test_files_removed_before_a_failure_do_not_stop_the_next_publish(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(memory)
    for name in ("a.txt", "b.txt"):
        write_text(folder / name, name)
    publish(folder)
    for name in ("a.txt", "b.txt"):
        (folder / name).unlink()
    plain, removed = type(memory).rm_file, []

    def failing(self: object, path: str) -> None:
        if removed:
            raise ConnectionError("network gone")
        removed.append(path)
        plain(self, path)

    with monkeypatch.context() as fault, pytest.raises(UserError, match="network gone"):
        fault.setattr(type(memory), "rm_file", failing)
        publish(folder)
    publish(folder)
    assert not [name for name in stored(memory) if name.endswith(".txt")]


def test_an_address_that_cannot_be_written_is_an_error_that_says_how_to_continue(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(memory)
    write_text(folder / "config.yaml", "seed: 0\n")
    monkeypatch.setattr(remote, "put_file", lambda *_: (_ for _ in ()).throw(PermissionError("Access Denied")))
    with pytest.raises(
        UserError, match=r"cannot be written \(PermissionError: Access Denied\).*`rlcas resume /"
    ):
        publish(folder)


def test_an_address_that_is_not_empty_is_refused(memory: fsspec.AbstractFileSystem) -> None:
    remote.check_address_is_new(ADDRESS)
    memory.pipe_file("/bucket/run/config.yaml", b"seed: 0")
    with pytest.raises(
        UserError, match=r"exists and is not empty: name another with --out, or continue it with `rlcas resume"
    ):
        remote.check_address_is_new(ADDRESS)


@pytest.mark.parametrize("command", ["sweep", "compare"])
def test_a_folder_that_many_nodes_write_cannot_be_an_address(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--over", "sampler.k=1,2"] if command == "sweep" else []
    assert main([command, *words, "--data", "phantom", "--out", ADDRESS, "--dry-run"]) == 2
    assert f"out {ADDRESS} is an address, and only `rlcas run`" in capsys.readouterr().err


def test_a_run_at_an_address_is_evaluated_without_its_bulk(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_npz(tmp_path)
    data = load(config(name))
    settings = tiny_config(dataset={}).model_copy(update={"data": name})
    save_run(tmp_path / "run", data, settings)
    write_text(tmp_path / "run/pool/class-000/shard-000.npy", "bulk")
    memory.put(str(tmp_path / "run"), "/bucket/run", recursive=True)
    assert main(["evaluate", ADDRESS]) == 0
    assert "test of 6 images" in capsys.readouterr().out
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_file_is_uploaded_and_then_renamed_where_an_upload_is_not_atomic(tmp_path: Path) -> None:
    store = fsspec.filesystem("file")
    seen = []
    store_mv = store.mv
    (tmp_path / "a").write_text("new")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a").write_text("old")

    class Watched(type(store)):
        cachable = False

        def mv(self, path1: str, path2: str, **named: object) -> None:
            seen.append((Path(path1).read_text(), Path(path2).read_text()))
            store_mv(path1, path2, **named)

    put_file(Watched(), tmp_path / "a", f"{tmp_path}/store/a")
    assert seen == [("new", "old")] and (tmp_path / "store/a").read_text() == "new"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


def test_data_on_an_http_server_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("RLCAS_CACHE", str(tmp_path / "cache"))
    name = write_npz(tmp_path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data = load(config(f"npz:http://127.0.0.1:{server.server_port}/set.npz"))
        server.shutdown()
    np.testing.assert_array_equal(data.train.images_NCHW, load(config(name)).train.images_NCHW)


def test_a_server_without_the_file_and_one_that_is_down_are_different_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("RLCAS_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/set.npz"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=rf"^{address} does not exist or is empty: correct the address$"):
            remote.fetched(address, None)
        server.shutdown()
    with pytest.raises(UserError, match=rf"^{address} cannot be read \(.*: check the address, the network"):
        remote.fetched(address, None)


@pytest.mark.slow
def test_a_run_at_an_address_continues_elsewhere_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store keeps a run that stopped after its first epoch; a machine with an empty cache ends it."""
    small_run.write_npz(tmp_path / "shapes.npz")
    rng = np.random.default_rng(0)
    for name in small_run.CLASS_NAMES:
        for number in range(6):
            write_image(tmp_path / "images" / name / f"{number}.png", gray(rng.integers(99), (24, 24)))
    words = ["--data", f"npz:file://{tmp_path}/shapes.npz", "--pool", f"folder:file://{tmp_path}/images"]
    words += [*small_run.flags(), *small_run.IN_PROCESS]
    monkeypatch.setenv("RLCAS_CACHE", str(tmp_path / "cache"))
    done = rlcas("train", *words, "--out", f"file://{tmp_path}/store/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "store/run"
    weights, epochs = (run / "model.safetensors").read_bytes(), (run / "epochs.jsonl").read_text().splitlines()
    assert json.loads((run / "metrics.json").read_text())["test"]["n"] == 18
    for left in ("metrics.json", "model.safetensors", "checkpoints/epoch-0002/sha256.json"):
        (run / left).unlink()
    another_machine(tmp_path, monkeypatch)
    done = rlcas("resume", f"file://{run}", cwd=tmp_path)
    assert done.returncode == 0 and f"all of it is at file://{run}" in done.stdout, done.stderr
    assert (run / "model.safetensors").read_bytes() == weights
    assert [json.loads(line)["rewards"] for line in (run / "epochs.jsonl").read_text().splitlines()] == [
        json.loads(line)["rewards"] for line in epochs
    ]
