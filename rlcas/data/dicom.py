"""Decoding of DICOM: rescaling, window, photometric interpretation (PS3.3, C.7.6.3 and C.11)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from rlcas.data.pixels import windowed
from rlcas.data.source import Pixels, Window
from rlcas.errors import UserError

DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_PIXELS = 178_956_970
"""Pixels of an image: Pillow's limit for the other formats, twice its MAX_IMAGE_PIXELS."""


def decode_dicom(path: Path, window: Window | None) -> Pixels:
    """Return [H, W] or [H, W, 3]: uint8, or rescaled values (float64) to which no window is applied yet.

    MONOCHROME1 (low is white) is inverted. If `window` is None, the file's own is applied, if it has one.

    Raises:
        UserError: pydicom is missing, the file is not DICOM, deflated, too large or damaged, or has several frames.
    """
    # pydicom is an extra, and only DICOM files need it.
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"{path} is DICOM, which needs pydicom: pip install rlcas[dicom]") from error
    try:
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
            # pydicom inflates the whole file at once, without a limit on the size of the result.
            raise UserError(f"{path} is deflated DICOM, which may unpack without end: save it uncompressed")
        return _shown(path, pydicom.dcmread(path), window)
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise UserError(f"{path} is not a DICOM file, or damaged: replace or remove it") from error


def _shown(path: Path, dataset: Any, window: Window | None) -> Pixels:
    from pydicom.pixels import pixel_array

    # From the header, before any pixel is unpacked. NumberOfFrames is optional, and an empty tag counts as 1.
    pixels = math.prod(int(dataset.get(tag) or 1) for tag in ("Rows", "Columns", "NumberOfFrames"))
    if pixels > MAX_PIXELS:
        raise UserError(f"{path} claims to have {pixels} pixels, {MAX_PIXELS} at most: save a smaller image")
    stored = pixel_array(dataset)
    # pydicom has converted YCbCr to RGB.
    if stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8:
        return stored
    if stored.ndim != 2:
        raise UserError(
            f"{path} has pixels of shape {stored.shape}: save one gray or 8-bit RGB frame in each file"
        )
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    shown_by = _own_window(dataset) if window is None else window
    if shown_by is not None:
        # A window is in rescaled values, so the inversion comes after it.
        shown = windowed(stored * slope + intercept, shown_by)
        return 255 - shown if inverted else shown
    if inverted:
        # Without a window yet: inverted in the stored values, whose range is known.
        stored = _mirrored(stored, int(dataset.BitsStored))
    # Unchanged 8 bits stay 8 bits: everything else is a wide image, which needs a window.
    if stored.dtype == np.uint8 and (slope, intercept) == (1, 0):
        return stored
    return stored * slope + intercept


def _mirrored(stored: Pixels, bits: int) -> Pixels:
    """Return the stored values inverted within the range of `bits`."""
    # ~x = -1 - x mirrors the range of a signed integer.
    return ~stored if np.issubdtype(stored.dtype, np.signedinteger) else stored.dtype.type(2**bits - 1) - stored


def _own_window(dataset: Any) -> Window | None:
    """Return the first window of the file, for the linear function of C.11.2.1.2.1; None if it has none."""
    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return None
    center, width = (float(np.atleast_1d(dataset[key].value)[0]) for key in ("WindowCenter", "WindowWidth"))
    # PS3.3, C.11.2.1.2.1: black up to the first value, white above the second.
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
