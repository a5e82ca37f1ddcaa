from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_files import arrays, config

from rlcas.data import DATASETS, load, load_test
from rlcas.data.medmnist import medmnist_info
from rlcas.errors import UserError


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which breastmnist_64 is downloaded over HTTP, to tmp_path/data."""
    folder = tmp_path / "served"
    folder.mkdir()
    np.savez(folder / "breastmnist_64.npz", **arrays())
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/breastmnist_64.npz?download=1"
        entry = medmnist_info()["breastmnist"]
        monkeypatch.setitem(entry, "url_64", url)
        monkeypatch.setitem(entry, "MD5_64", _md5(folder / "breastmnist_64.npz"))
        monkeypatch.setenv("RLCAS_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        yield folder
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_a_set_is_downloaded_once_checked_and_named(
    served: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = load(config("breastmnist_64"), progress=True)
    assert data.class_names == ("malignant", "normal, benign") and data.name == "breastmnist_64"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["breastmnist_64.npz"]
    assert "100%" in capfd.readouterr().err
    (served / "breastmnist_64.npz").unlink()
    assert len(load_test(config("breastmnist_64"))[0]) == 6


def test_the_folder_in_the_home_is_searched_too(served: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / ".medmnist").mkdir(parents=True)
    (served / "breastmnist_64.npz").rename(tmp_path / "home" / ".medmnist" / "breastmnist_64.npz")
    assert len(load(config("breastmnist_64")).train) == 12


def test_a_download_with_another_md5_is_deleted(served: Path, tmp_path: Path) -> None:
    (served / "breastmnist_64.npz").write_bytes(b"not it")
    with pytest.raises(
        UserError, match=r"breastmnist_64.npz cannot be downloaded from http.*put it into .*data"
    ):
        load(config("breastmnist_64"))
    assert list((tmp_path / "data").iterdir()) == []


def test_a_host_out_of_reach_is_an_error_of_one_line(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(medmnist_info()["breastmnist"], "url_64", "http://127.0.0.1:9/breastmnist_64.npz")
    with pytest.raises(UserError, match=r"cannot be downloaded.*RLCAS_DATA") as caught:
        load(config("breastmnist_64"))
    assert "\n" not in str(caught.value)


def test_an_existing_file_that_is_not_the_official_one_is_refused(served: Path, tmp_path: Path) -> None:
    path = tmp_path / "data" / "breastmnist_64.npz"
    path.parent.mkdir()
    np.savez(path, **arrays(num_classes=1))
    with pytest.raises(
        UserError, match=r"is not the official file.*delete it.*--data npz:.*breastmnist_64.npz"
    ):
        load(config("breastmnist_64"))


def test_multi_label_sets_are_refused() -> None:
    with pytest.raises(UserError, match="'chestmnist' is multi-label"):
        load(config("chestmnist_128"))


def test_every_flat_set_has_a_name_in_four_sizes_and_no_volume_has() -> None:
    assert {"phantom", "breastmnist", "retinamnist_224", "organsmnist_64"} <= DATASETS.keys()
    assert len(DATASETS) == 1 + 12 * 4 and not any("3d" in name for name in DATASETS)


@pytest.mark.parametrize("name", ["breastmnist_32", "nodulemnist3d"])
def test_an_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(UserError, match=rf"data '{name}' is unknown: use npz:PATH, .*bloodmnist_64"):
        load(config(name))


def test_a_reader_from_outside_is_imported_by_its_name() -> None:
    with pytest.raises(UserError, match="data 'nowhere:reader' cannot be imported"):
        load(config("nowhere:reader"))


def test_known_names_cost_no_torchvision() -> None:
    code = "import sys, rlcas.data; print('torchvision' in sys.modules, 'medmnist' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_official_sets_are_read_by_name(real_data: Path) -> None:
    assert load(config("breastmnist_64")).image_shape_CHW == (1, 64, 64)
    assert load(config("retinamnist")).train.class_counts(5).tolist() == [486, 128, 206, 194, 66]
