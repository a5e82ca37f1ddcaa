"""Gray values of DICOM as a viewer shows them: rescaling, VOI window or table, inversion (PS3.3, C.11.1 to C.11.6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlcas.data.dicom_tables import is_little_endian, sequence_table
from rlcas.data.pixels import windowed
from rlcas.data.source import Pixels, Window
from rlcas.errors import UserError
from rlcas.types import Float64, Uint8


@dataclass(frozen=True, slots=True)
class Rescaled:
    """The values that windows are in, and their possible range."""

    values: Pixels
    """[H, W]"""
    lowest: float
    highest: float
    in_8_bits: bool
    """Whether they are no measurements but shades of 8 bits at most, from black to white over their range."""


def shown(path: Path, dataset: Any, stored: Pixels, index: int, window: Window | None) -> Pixels:
    """Return [H, W]: uint8 as shown, or rescaled values (float64) to which no window is applied yet.

    Args:
        path: the file, for messages.
        dataset: its elements.
        stored: [H, W] the frame's stored values.
        index: the frame, from 0.
        window: values shown as black and white; None: those of the file, if it has any.

    Raises:
        UserError: the file's rescaling or window has no meaning.
        ValueError: a lookup table is damaged.
    """
    rescaled = _rescaled(path, dataset, stored, index)
    if window is not None:
        gray = windowed(rescaled.values, window)
    elif (own := _by_own_window(path, dataset, rescaled, index)) is not None:
        gray = own
    elif rescaled.in_8_bits:
        gray = windowed(rescaled.values, (rescaled.lowest, rescaled.highest))
    else:
        values = rescaled.values.astype(np.float64)
        return rescaled.lowest + rescaled.highest - values if _is_inverted(dataset) else values
    return 255 - gray if _is_inverted(dataset) else gray


def _is_inverted(dataset: Any) -> bool:
    shape = str(dataset.get("PresentationLUTShape") or "IDENTITY")
    # INVERSE is how MONOCHROME1 is shown, and not a second inversion of it.
    return dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE"


def _rescaled(path: Path, dataset: Any, stored: Pixels, index: int) -> Rescaled:
    signed = bool(np.issubdtype(stored.dtype, np.signedinteger))
    if items := dataset.get("ModalityLUTSequence"):
        table = sequence_table(items[0], signed=signed, little_endian=is_little_endian(dataset))
        return Rescaled(table.of(stored), 0, table.highest, in_8_bits=table.highest <= 255)
    bits = int(dataset.BitsStored)
    limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = _slope_and_intercept(dataset, index)
    if slope == 0 or not math.isfinite(slope * limits[1] + intercept):
        raise UserError(f"{path} has RescaleSlope {slope:g} and RescaleIntercept {intercept:g}: correct them")
    if (slope, intercept) == (1, 0):
        return Rescaled(stored, limits[0], limits[1], in_8_bits=not signed and bits <= 8)
    lowest, highest = sorted(slope * limit + intercept for limit in limits)
    return Rescaled(stored * slope + intercept, lowest, highest, in_8_bits=False)


def _slope_and_intercept(dataset: Any, index: int) -> tuple[float, float]:
    for scope in _scopes(dataset, index, "PixelValueTransformationSequence"):
        slope, intercept = _number(scope, "RescaleSlope"), _number(scope, "RescaleIntercept")
        if slope is not None or intercept is not None:
            return 1.0 if slope is None else slope, intercept or 0.0
    return 1.0, 0.0


def _by_own_window(path: Path, dataset: Any, rescaled: Rescaled, index: int) -> Uint8 | None:
    """Return [H, W] by the file's first VOI table, else by its first window; None if it has neither."""
    for scope in _scopes(dataset, index, "FrameVOILUTSequence"):
        items = scope.get("VOILUTSequence")
        if items and items[0].get("LUTData") is not None:
            little_endian = is_little_endian(dataset)
            table = sequence_table(items[0], signed=rescaled.lowest < 0, little_endian=little_endian)
            return windowed(table.of(rescaled.values), (0, table.highest))
        center, width = _number(scope, "WindowCenter"), _number(scope, "WindowWidth")
        if center is not None and width is not None:
            function = str(scope.get("VOILUTFunction") or "LINEAR")
            return _by_function(path, rescaled.values.astype(np.float64), center, width, function)
    return None


def _by_function(path: Path, values: Float64, center: float, width: float, function: str) -> Uint8:
    """Return [H, W] by a window of C.11.2.1.2 and C.11.2.1.3."""
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UserError(f"{path} has VOILUTFunction {function}: set --dataset.window=LOW,HIGH")
    if not (
        math.isfinite(center) and math.isfinite(width) and (width >= 1 or (width > 0 and function != "LINEAR"))
    ):
        raise UserError(
            f"{path} has a window of center {center:g} and width {width:g}: set --dataset.window=LOW,HIGH"
        )
    if function == "SIGMOID":
        # tanh, because exp overflows far from the center.
        return np.rint(127.5 * (1 + np.tanh(2 * (values - center) / width))).astype(np.uint8)
    if function == "LINEAR":
        # PS3.3, C.11.2.1.2.1: black up to the first value, white above the second.
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 255, 0).astype(np.uint8)
    return windowed(values, (center - width / 2, center + width / 2))


def _scopes(dataset: Any, index: int, macro: str) -> Iterator[Any]:
    """Yield the places of a frame's values, the most specific first: its group, the shared group, the file."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[index : index + 1], *shared[:1]):
        yield from (group.get(macro) or [])[:1]
    yield dataset


def _number(scope: Any, keyword: str) -> float | None:
    """Return the first value of an element; None if it is absent or empty."""
    values = np.atleast_1d(np.asarray(scope.get(keyword, []), dtype=object))
    return None if not len(values) or values[0] in (None, "") else float(values[0])
