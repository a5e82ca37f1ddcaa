"""Lookup tables of DICOM: Modality LUT, VOI LUT and palettes (PS3.3, C.11.1, C.11.2 and C.7.6.3.1.5).

pydicom reads segmented palettes. It is not asked for the others: in 3.0 `apply_voi_lut` and `apply_color_lut` look up
tables of 8-bit entries by indices of 8 bits, which wrap beyond 255, `apply_color_lut` refuses 8-bit tables of an odd
length, and `apply_modality_lut` those of 10 to 15 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlcas.data.source import Pixels
from rlcas.types import Int64, Uint8

WORD = 2**16
COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True, slots=True)
class LookupTable:
    """Entries for the values from `first` on; smaller and larger values have the first and the last entry."""

    entries: Int64
    first: int
    highest: int
    """Value of the brightest entry that the bits allow."""

    def of(self, values: Pixels) -> Int64:
        """Return the entries for `values`, which are rounded, in their shape."""
        indices = np.rint(values).astype(np.int64) - self.first
        return self.entries[np.clip(indices, 0, len(self.entries) - 1)]


def table_of(descriptor: Any, data: Any, *, signed: bool, little_endian: bool) -> LookupTable:
    """Return the table of a descriptor (number of entries, first value, bits of an entry) and its data.

    Args:
        descriptor: the element's three numbers.
        data: the element's value: bytes of 8 or 16 bits an entry, or numbers of 16 bits.
        signed: whether the values that are looked up may be negative.
        little_endian: the order of the bytes in words.

    Raises:
        ValueError: the descriptor or the length of the data is wrong.
    """
    count, first, bits = (int(number) for number in descriptor)
    # In 16 bits: 0 means 65536, and a signed element has negative numbers.
    count, first = count % WORD or WORD, first % WORD
    if not 1 <= bits <= 16:
        raise ValueError(f"a lookup table has entries of {bits} bits")
    entries = _entries(data, count, little_endian)
    if len(entries) < count:
        raise ValueError(f"a lookup table has {len(entries)} of {count} entries")
    # Some files have entries of more bits than they say.
    highest = max(2**bits - 1, int(entries.max()))
    return LookupTable(entries[:count], first - WORD if signed and first >= WORD // 2 else first, highest)


def _entries(data: Any, count: int, little_endian: bool) -> Int64:
    if not isinstance(data, bytes):
        data, little_endian = np.atleast_1d(np.asarray(data)).astype("<u2").tobytes(), True
    packed = len(data) < 2 * count
    word = "<u2" if little_endian else ">u2"
    return np.frombuffer(data, np.uint8 if packed else word).astype(np.int64)


def sequence_table(item: Any, *, signed: bool, little_endian: bool) -> LookupTable:
    """Return the table of an item of a Modality or VOI LUT sequence.

    Raises:
        ValueError: it is damaged.
    """
    return table_of(item.LUTDescriptor, item.LUTData, signed=signed, little_endian=little_endian)


def coloured(dataset: Any, indices: Pixels) -> Uint8:
    """Return [H, W, 3]: the palette's colours; those of 16 bits keep the upper 8.

    Args:
        dataset: the file, which has a palette.
        indices: [H, W] stored values.

    Raises:
        ValueError: the palette is damaged.
    """
    segmented = "SegmentedRedPaletteColorLookupTableData" in dataset
    return _from_segments(dataset, indices) if segmented else _from_tables(dataset, indices)


def _from_tables(dataset: Any, indices: Pixels) -> Uint8:
    tables = [
        table_of(
            dataset[f"{colour}PaletteColorLookupTableDescriptor"].value,
            dataset[f"{colour}PaletteColorLookupTableData"].value,
            signed=np.issubdtype(indices.dtype, np.signedinteger),
            little_endian=is_little_endian(dataset),
        )
        for colour in COLOURS
    ]
    colours_HWC = np.stack([table.of(indices) for table in tables], axis=2)
    # The entries say it and not the descriptor: palettes of 8 bits are often declared as 16.
    wide = max(int(table.entries.max()) for table in tables) > 255
    return (colours_HWC >> 8 if wide else colours_HWC).astype(np.uint8)


def _from_segments(dataset: Any, indices: Pixels) -> Uint8:
    from pydicom.pixels import apply_color_lut  # pydicom is an extra

    _, first, bits = dataset.RedPaletteColorLookupTableDescriptor
    if bits == 8 and int(indices.max()) - first > 255:
        raise ValueError("it has a segmented palette of 8 bits with more than 256 colours")
    colours_HWC = apply_color_lut(indices, dataset)[..., : len(COLOURS)]
    return (colours_HWC >> 8 if bits == 16 else colours_HWC).astype(np.uint8)


def is_little_endian(dataset: Any) -> bool:
    """Return the order of the bytes in words of the file's transfer syntax."""
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)
