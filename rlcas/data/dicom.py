"""Decoding of DICOM: what a file must be, its frames and its colours (PS3.3, C.7.6.3)."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from rlcas.config.data import Frame
from rlcas.data.dicom_gray import shown
from rlcas.data.dicom_tables import coloured
from rlcas.data.frames import TO_CHOOSE, check_size, chosen_frame
from rlcas.data.source import Pixels, Window
from rlcas.data.wide import floating
from rlcas.errors import UserError

DEFLATED = "1.2.840.10008.1.2.1.99"
GRAY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Photometric interpretations that pydicom converts to RGB."""
PLUGINS = ("pillow", "pyjpegls", "pylibjpeg")
"""pydicom's decoders, the first available one first. GDCM, if installed, comes last: it ends the process on damage."""


def decode_dicom(path: Path, window: Window | None, frame: Frame = None) -> Pixels:
    """Return [H, W] or [H, W, 3]: uint8, or rescaled values (float64) to which no window is applied yet.

    Args:
        path: the file.
        window: values shown as black and white; None: the file's own VOI table or window, if it has one.
        frame: which one, if the file has several.

    Raises:
        UserError: pydicom or a decoder is missing; the file is not DICOM, deflated, too large, damaged or of a kind
            whose pixels have no one meaning; or it has several frames and `frame` names none of them.
    """
    # pydicom is an extra, and only DICOM files need it.
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"{path} is DICOM, which needs pydicom: pip install rlcas[dicom]") from error
    _ignore_warnings_of_pydicom()
    try:
        if _is_deflated(path):
            raise UserError(f"{path} is deflated DICOM, which may unpack without end: save it uncompressed")
        return _decoded(path, pydicom.dcmread(path), window, frame)
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise UserError(f"{path} is not a DICOM file, or damaged: replace or remove it") from error


def patient_id(path: Path) -> str:
    """Return the patient that a DICOM file's header names; empty if it names none, or cannot be read."""
    try:
        import pydicom

        _ignore_warnings_of_pydicom()
        if _is_deflated(path):
            return ""
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(header.get("PatientID") or "").strip()
    # For a note alone: what is wrong with the file is said when it is decoded.
    except Exception:
        return ""


def _is_deflated(path: Path) -> bool:
    """Return whether pydicom would inflate the whole file at once, without a limit on the size of the result."""
    import pydicom

    return bool(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED)


def _ignore_warnings_of_pydicom() -> None:
    """Ignore warnings of, for example, numbers with too many digits, which do not change the pixels.

    For good, because files are decoded in threads, and warnings.catch_warnings() is not safe in those.
    """
    # Not again for every file: a new filter makes Python forget which warnings it has shown.
    if ("ignore", None, Warning, re.compile("pydicom"), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module="pydicom")


def _decoded(path: Path, dataset: Any, window: Window | None, frame: Frame) -> Pixels:
    from pydicom.pixels import pixel_array

    _check_kind(path, dataset)
    index = _frame(path, dataset, frame)
    stored = pixel_array(dataset, index=index, decoding_plugin=_plugin(path, dataset))
    kind = dataset.PhotometricInterpretation
    if kind in GRAY and stored.ndim == 2:
        return shown(path, dataset, stored, index, window)
    if kind == PALETTE and stored.ndim == 2:
        return coloured(dataset, stored)
    if kind in COLOUR and stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8:
        return stored
    raise UserError(_of_shape(path, stored.shape))


def _of_shape(path: Path, shape: tuple[int, ...]) -> str:
    return f"{path} has pixels of shape {shape}: save one gray or 8-bit RGB frame in each file"


def _check_kind(path: Path, dataset: Any) -> None:
    """Check what the header says of the pixels.

    Raises:
        UserError: there are none, or they are of a kind that is not read.
    """
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise floating(path)
    if "PixelData" not in dataset:
        raise UserError(f"{path} is DICOM without an image: remove it")
    kind = str(dataset.get("PhotometricInterpretation") or "none")
    if kind not in (*GRAY, PALETTE, *COLOUR):
        raise UserError(f"{path} has the photometric interpretation {kind}: save it as MONOCHROME2 or RGB")
    if kind in GRAY and dataset.get("PixelPresentation") in ("COLOR", "MIXED"):
        raise UserError(f"{path} colours gray values by a supplemental palette: save it as RGB")
    if kind == PALETTE and "RedPaletteColorLookupTableDescriptor" not in dataset:
        raise UserError(f"{path} is PALETTE COLOR without a palette: save it as MONOCHROME2 or RGB")
    if int(dataset.get("SamplesPerPixel") or 1) > 1 and dataset.get("PlanarConfiguration") is None:
        raise UserError(
            f"{path} does not say the order of its colours: save it with PlanarConfiguration 0 (R, G, B of each pixel)"
        )
    bits, high = dataset.get("BitsStored"), dataset.get("HighBit")
    if None not in (bits, high) and high != bits - 1 and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        raise UserError(f"{path} has BitsStored {bits} and HighBit {high}: save it with HighBit {bits - 1}")


def _frame(path: Path, dataset: Any, frame: Frame) -> int:
    """Return the index of the frame to be shown.

    Raises:
        UserError: the image is too large, or has several frames of which none is chosen.
    """
    # NumberOfFrames is optional, and an empty tag counts as 1.
    num_frames, rows, columns = (
        max(int(dataset.get(tag) or 1), 1) for tag in ("NumberOfFrames", "Rows", "Columns")
    )
    if num_frames > 1 and frame is None:
        samples = int(dataset.get("SamplesPerPixel") or 1)
        shape = (num_frames, rows, columns, *((samples,) if samples > 1 else ()))
        raise UserError(f"{_of_shape(path, shape)}, {TO_CHOOSE}")
    # From the header, before any pixel is unpacked; a chosen frame is unpacked alone.
    check_size(path, rows * columns)
    return chosen_frame(path, num_frames, frame)


def _plugin(path: Path, dataset: Any) -> str:
    """Return the name of the decoder that unpacks the pixels; empty if pydicom unpacks them itself.

    Raises:
        UserError: the decoder is missing.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        # Videos, for example.
        raise UserError(
            f"{path} is packed as {syntax.name}, which is not read: save it uncompressed"
        ) from error
    # Of this syntax Pillow and GDCM unpack 8 bits alone.
    wide = syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8
    plugins = [plugin for plugin in PLUGINS if plugin in decoder.available_plugins]
    if wide:
        plugins = [plugin for plugin in plugins if plugin == "pylibjpeg"]
    if not decoder.is_available or (wide and not plugins):
        raise UserError(
            f"{path} is packed as {syntax.name}, whose decoder is missing: "
            "pip install rlcas[dicom], or save it uncompressed"
        )
    return next(iter(plugins), "")
