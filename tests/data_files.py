"""Small files in every form that rlcas reads, for the tests of rlcas.data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from rlcas import settings
from rlcas.config import RunConfig

SHARES = {"train": 12, "val": 4, "test": 6}


def config(data: str, *, seed: int = 0, **dataset: Any) -> RunConfig:
    return RunConfig.model_validate({"data": data, "seed": seed, "dataset": dataset})


def arrays(*, num_classes: int = 2, shape: tuple[int, ...] = (8, 8), dtype: str = "uint8") -> dict[str, Any]:
    """Return arrays in MedMNIST's form: random pixels, labels in turn."""
    rng = np.random.default_rng(0)
    high = min(np.iinfo(dtype).max, 4096)
    found: dict[str, Any] = {}
    for split, count in SHARES.items():
        found[f"{split}_images"] = rng.integers(0, high, (count, *shape)).astype(dtype)
        found[f"{split}_labels"] = (np.arange(count) % num_classes).astype(np.uint8)[:, None]
    return found


def typed_window(text: str, low: int, high: int) -> tuple[float, float] | None:
    """Return the window that the settings make of the flag in `text`, typed with these values."""
    flag = re.search(r"--(\S+)=LOW,HIGH", text)
    assert flag is not None, text
    return settings.resolve(given={flag[1]: f"{low},{high}"}).dataset.window


def write_npz(folder: Path, **changes: Any) -> str:
    """Write `arrays()` with some changed (None takes one away) and return the name for `data`."""
    found = {**arrays(), **changes}
    path = folder / "set.npz"
    np.savez(path, **{key: value for key, value in found.items() if value is not None})
    return f"npz:{path}"


def write_image(path: Path, image: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image)).save(path)
    return path


def gray(seed: int, size: tuple[int, int] = (8, 8), dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size).astype(dtype)


def dicom(path: Path, stored: np.ndarray, **tags: object) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = stored.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    dataset.PixelData = stored.tobytes()
    for key, value in tags.items():
        setattr(dataset, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
