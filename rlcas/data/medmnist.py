"""MedMNIST's two-dimensional sets by name, downloaded once."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcas.data.npz import open_npz
from rlcas.data.source import Source
from rlcas.errors import UserError

SIZES_PX = (28, 64, 128, 224)


def medmnist_info() -> Mapping[str, dict[str, Any]]:
    """Return `medmnist.INFO`, without running the package's `__init__`, which imports torchvision."""
    if "medmnist.info" not in sys.modules:
        package = importlib.util.find_spec("medmnist")
        assert package is not None and package.submodule_search_locations is not None
        path = Path(package.submodule_search_locations[0]) / "info.py"
        spec = importlib.util.spec_from_file_location("medmnist.info", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # It warns of a home that cannot be written to, where this project keeps nothing by itself.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
        sys.modules["medmnist.info"] = module
    return sys.modules["medmnist.info"].INFO


def medmnist_names() -> dict[str, tuple[str, int]]:
    """Return name -> (flag, size_px) of every 2-D set: `breastmnist`, `breastmnist_64` and so on."""
    flags = [flag for flag in medmnist_info() if not flag.endswith("3d")]
    return {flag + _suffix(size_px): (flag, size_px) for flag in flags for size_px in SIZES_PX}


def local_files() -> dict[str, Path]:
    """Return name -> file of every 2-D set in $RLCAS_DATA or ~/.medmnist."""
    paths = {name: _local_file(name) for name in medmnist_names()}
    return {name: path for name, path in paths.items() if path is not None}


def check_file(name: str, path: Path) -> None:
    """Compare `path` with the official file of the set `name`, by md5.

    Raises:
        UserError: its md5 is not the official one.
    """
    flag, size_px = medmnist_names()[name]
    _check_md5(path, medmnist_info()[flag]["MD5" + _suffix(size_px)])


def open_medmnist(flag: str, size_px: int, *, progress: bool) -> Source:
    """Return a MedMNIST set, downloaded if it is neither in $RLCAS_DATA nor in ~/.medmnist.

    Raises:
        UserError: a multi-label set, a file whose md5 is not the official one, or a failed download.
    """
    info = medmnist_info()[flag]
    if info["task"].startswith("multi-label"):
        raise UserError(f"data {flag!r} is multi-label: use a set with one label for each image")
    end = _suffix(size_px)
    path = _fetched(flag + end, info["url" + end], info["MD5" + end], progress)
    return open_npz(path, class_names=tuple(info["label"][str(i)] for i in range(len(info["label"]))))


def _suffix(size_px: int) -> str:
    return "" if size_px == SIZES_PX[0] else f"_{size_px}"


def _fetched(name: str, url: str, md5: str, progress: bool) -> Path:
    path = _local_file(name)
    if path is None:
        return _download(_folders()[0] / f"{name}.npz", url, md5, progress)
    _check_md5(path, md5)
    return path


def _folders() -> list[Path]:
    named = [Path(os.environ["RLCAS_DATA"])] if os.environ.get("RLCAS_DATA") else []
    return [*named, Path.home() / ".medmnist"]


def _local_file(name: str) -> Path | None:
    paths = (folder / f"{name}.npz" for folder in _folders())
    return next((path for path in paths if path.is_file()), None)


def _check_md5(path: Path, md5: str) -> None:
    with path.open("rb") as file:
        # MedMNIST publishes md5 sums: they find damaged files, and are no protection against forged ones.
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise UserError(
            f"{path} is not the official file (md5 {found}, not {md5}): delete it so that it is downloaded again, "
            f"or use --data npz:{path} to read it all the same"
        )


def _download(path: Path, url: str, md5: str, progress: bool) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash=f"md5:{md5}", fname=path.name, path=path.parent, progressbar=progress)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; pooch's md5 fault is a ValueError
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path.name} cannot be downloaded from {url} ({reason}): download it elsewhere and put it into "
            f"{path.parent} (or the folder that RLCAS_DATA names)"
        ) from error
    return path
