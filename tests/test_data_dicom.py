"""DICOM in its many forms: each is read with the pixels that a viewer shows, or refused in one line."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from data_files import config, dicom, gray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG4HP41,
    UID,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from rlcas.data import load
from rlcas.data.decode import decode
from rlcas.data.dicom import DEFLATED, patient_id
from rlcas.errors import UserError

PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"}
TWELVE = {"BitsStored": 12, "HighBit": 11}
MONOCHROME1 = {"PhotometricInterpretation": "MONOCHROME1"}
RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
DATA = Path(pydicom.__file__).parent / "data" / "test_files"


def twelve_bits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, (8, 8)).astype(np.uint16)


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return C.11.2.1.2.1's formula as the standard writes it."""
    return np.rint(255 * np.clip((values.astype(float) - (center - 0.5)) / (width - 1) + 0.5, 0, 1))


def shown(path: Path, stored: np.ndarray, **tags: object) -> np.ndarray:
    return decode(dicom(path / "x.dcm", stored, **tags), None)


def rewritten(path: Path, syntax: UID, pixels: bytes) -> Path:
    """Give a file other pixels of another transfer syntax."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([pixels])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def palette(colours_3N: np.ndarray, bits: int, first: int = 0) -> dict[str, object]:
    tags: dict[str, object] = {}
    for colour, entries in zip(("Red", "Green", "Blue"), colours_3N, strict=True):
        count = len(entries) % 2**16
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = entries.tobytes() + b"\0" * (entries.nbytes % 2)
    return tags


COLOURS_3N = np.random.default_rng(5).integers(0, 256, (3, 256)).astype(np.uint8)


@pytest.mark.parametrize(
    ("entries_3N", "bits"),
    [
        (COLOURS_3N, 8),
        (COLOURS_3N[:, :255], 8),  # padded to an even length
        (COLOURS_3N.astype(np.uint16), 8),
        (COLOURS_3N.astype(np.uint16) * 257, 16),
        (COLOURS_3N.astype(np.uint16) << 8, 16),
        (COLOURS_3N.astype(np.uint16), 16),  # not scaled to 16 bits, as some machines write it
    ],
)
def test_a_palette_is_read_as_its_colours(tmp_path: Path, entries_3N: np.ndarray, bits: int) -> None:
    stored = np.minimum(gray(1), entries_3N.shape[1] - 1)
    expected = COLOURS_3N[:, stored].transpose(1, 2, 0)
    np.testing.assert_array_equal(shown(tmp_path, stored, **PALETTE, **palette(entries_3N, bits)), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_a_palette_may_begin_anywhere_and_have_65536_colours(tmp_path: Path, dtype: type) -> None:
    first = int(np.iinfo(dtype).min)
    colours_3N = np.random.default_rng(6).integers(0, 256, (3, 2**16)).astype(np.uint8)
    indices = np.random.default_rng(7).integers(0, 2**16, (8, 8))
    stored = (indices + first).astype(dtype)
    whole = shown(tmp_path, stored, **PALETTE, **palette(colours_3N, 8, first))
    np.testing.assert_array_equal(whole, colours_3N[:, indices].transpose(1, 2, 0))
    part = shown(tmp_path, stored, **PALETTE, **palette(colours_3N[:, :100], 8, 1000))
    expected = colours_3N[:, np.clip(stored.astype(int) - 1000, 0, 99)]
    np.testing.assert_array_equal(part, expected.transpose(1, 2, 0))


def segments(words: Sequence[int], bits: int) -> dict[str, object]:
    data = np.array(words, np.uint16 if bits == 16 else np.uint8).tobytes()
    tags: dict[str, object] = {}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tags[f"Segmented{colour}PaletteColorLookupTableData"] = data
    return tags


def test_a_palette_of_segments_is_read(tmp_path: Path) -> None:
    # One entry of 0, then 255 on a line up to the brightest.
    ramp = np.stack([gray(1)] * 3, axis=2)
    np.testing.assert_array_equal(
        shown(tmp_path, gray(1), **PALETTE, **segments([0, 1, 0, 1, 255, 65280], 16)), ramp
    )
    eight = segments([0, 1, 0, 1, 255, 255], 8)
    np.testing.assert_array_equal(shown(tmp_path, gray(1), **PALETTE, **eight), ramp)
    with pytest.raises(UserError, match="a segmented palette of 8 bits with more than 256 colours"):
        shown(tmp_path, twelve_bits(), **PALETTE, **eight)


def test_a_palette_of_other_kinds_is_refused_or_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is PALETTE COLOR without a palette: save it as MONOCHROME2 or RGB$"):
        shown(tmp_path, gray(1), **PALETTE)
    tags = palette(COLOURS_3N, 8)
    np.testing.assert_array_equal(shown(tmp_path, gray(1), **tags), gray(1))
    with pytest.raises(UserError, match="colours gray values by a supplemental palette: save it as RGB"):
        shown(tmp_path, gray(1), **tags, PixelPresentation="MIXED")
    with pytest.raises(UserError, match="a lookup table has 256 of 300 entries"):
        shown(tmp_path, gray(1), **PALETTE, **(tags | {"RedPaletteColorLookupTableDescriptor": [300, 0, 8]}))
    with pytest.raises(UserError, match="a lookup table has entries of 0 bits"):
        shown(tmp_path, gray(1), **PALETTE, **(tags | {"RedPaletteColorLookupTableDescriptor": [256, 0, 0]}))


def table(entries: np.ndarray, bits: int, first: int = 0, representation: str = "OW") -> list[Dataset]:
    """Return a sequence with one lookup table."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 2**16, first % 2**16, bits]
    data = entries.tobytes() if representation == "OW" else [int(entry) for entry in entries]
    item.add_new("LUTData", representation, data)
    item.ModalityLUTType = "US"
    return [item]


ENTRIES = np.random.default_rng(8).integers(0, 4096, 4096).astype(np.uint16)


@pytest.mark.parametrize("representation", ["OW", "US"])
def test_a_modality_table_gives_the_values_that_windows_are_in(tmp_path: Path, representation: str) -> None:
    stored, sequence = twelve_bits(), table(ENTRIES, 12, representation=representation)
    tags = {**TWELVE, "ModalityLUTSequence": sequence}
    np.testing.assert_array_equal(shown(tmp_path, stored, **tags), ENTRIES[stored])
    np.testing.assert_array_equal(shown(tmp_path, stored, **tags, **MONOCHROME1), 4095 - ENTRIES[stored])
    own = shown(tmp_path, stored, **tags, WindowCenter=2000, WindowWidth=1000)
    np.testing.assert_allclose(own, linear(ENTRIES[stored], 2000, 1000), atol=1)
    given = decode(tmp_path / "x.dcm", (0.0, 4095.0))
    np.testing.assert_array_equal(given, np.rint(255 * (ENTRIES[stored] / 4095)))


@pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_table_of_8_bits_gives_8_bits(tmp_path: Path, sequence: str, packed: bool) -> None:
    """pydicom's own functions look up such a table by indices of 8 bits, which wrap."""
    entries = (ENTRIES >> 4).astype(np.uint8 if packed else np.uint16)
    stored = twelve_bits()
    pixels = shown(tmp_path, stored, **TWELVE, **{sequence: table(entries, 8)})
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, entries[stored])
    inverted = shown(tmp_path, stored, **TWELVE, **MONOCHROME1, **{sequence: table(entries, 8)})
    np.testing.assert_array_equal(inverted, 255 - entries[stored].astype(int))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_voi_table_is_of_rescaled_values_and_preferred_to_a_window(tmp_path: Path, bits: int) -> None:
    stored, entries = twelve_bits(), (ENTRIES[:200].astype(int) * 2**bits // 4096).astype(np.uint16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    pixels = shown(tmp_path, stored, **TWELVE, **tags, VOILUTSequence=table(entries, bits, first=-100))
    found = entries[np.clip(stored.astype(int) - 1024 + 100, 0, 199)]
    np.testing.assert_array_equal(pixels, np.rint(255 * (found / (2**bits - 1))))
    empty = shown(tmp_path, stored, **TWELVE, **tags, VOILUTSequence=[])
    np.testing.assert_allclose(empty, linear(stored.astype(int) - 1024, 40, 400), atol=1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("", lambda values: linear(values, 2000, 1000)),
        ("LINEAR", lambda values: linear(values, 2000, 1000)),
        ("LINEAR_EXACT", lambda values: np.rint(255 * np.clip((values - 2000.0) / 1000 + 0.5, 0, 1))),
        ("SIGMOID", lambda values: np.rint(255 / (1 + np.exp(-4 * (values - 2000.0) / 1000)))),
    ],
)
def test_each_function_of_a_window_is_applied(tmp_path: Path, function: str, expected: Any) -> None:
    tags = {**TWELVE, "WindowCenter": [2000, 1], "WindowWidth": [1000, 2], "VOILUTFunction": function}
    pixels = shown(tmp_path, twelve_bits(), **tags)
    np.testing.assert_allclose(pixels, expected(twelve_bits()), atol=1)
    inverted = shown(tmp_path, twelve_bits(), **tags, **MONOCHROME1)
    np.testing.assert_array_equal(inverted, 255 - pixels)


def test_a_window_of_width_1_is_a_step(tmp_path: Path) -> None:
    pixels = shown(tmp_path, gray(1), WindowCenter=100, WindowWidth=1)
    np.testing.assert_array_equal(pixels, np.where(gray(1) >= 100, 255, 0))


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [(1, 0, "LINEAR"), (1, 0.5, "LINEAR"), (1, -5, "LINEAR"), (1, 0, "LINEAR_EXACT"), (1, -5, "SIGMOID")],
)
def test_a_window_without_meaning_names_the_setting(
    tmp_path: Path, center: float, width: float, function: str
) -> None:
    with pytest.raises(
        UserError, match=rf"window of center 1 and width {width:g}: set --dataset.window=LOW,HIGH"
    ):
        shown(tmp_path, gray(1), WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_array_equal(decode(tmp_path / "x.dcm", (0.0, 255.0)), gray(1))


def test_rescaling_and_functions_without_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has VOILUTFunction CUBIC: set --dataset.window=LOW,HIGH"):
        shown(tmp_path, gray(1), WindowCenter=5, WindowWidth=9, VOILUTFunction="CUBIC")
    with pytest.raises(UserError, match="has RescaleSlope 0 and RescaleIntercept 3: correct them"):
        shown(tmp_path, gray(1), RescaleSlope=0, RescaleIntercept=3)


def test_an_empty_element_is_none(tmp_path: Path) -> None:
    empty = dict.fromkeys(("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"))
    np.testing.assert_array_equal(shown(tmp_path, gray(1), **empty, NumberOfFrames=None), gray(1))
    np.testing.assert_array_equal(shown(tmp_path, gray(1), WindowCenter=5, WindowWidth=None), gray(1))
    half = shown(tmp_path, gray(1), RescaleSlope=None, RescaleIntercept=3)
    np.testing.assert_array_equal(half, gray(1) + 3.0)


def groups(**macros: Mapping[str, object]) -> Dataset:
    group = Dataset()
    for macro, values in macros.items():
        item = Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(group, macro, [item])
    return group


def test_windows_and_rescaling_of_functional_groups_are_used(tmp_path: Path) -> None:
    frames = np.stack([twelve_bits(i) for i in range(3)])
    rescaling = {"PixelValueTransformationSequence": {"RescaleSlope": 2, "RescaleIntercept": -100}}
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    shared = {"SharedFunctionalGroupsSequence": [groups(FrameVOILUTSequence=window, **rescaling)]}
    single = shown(tmp_path, frames[0], **TWELVE, **shared)
    np.testing.assert_allclose(single, linear(frames[0] * 2.0 - 100, 1000, 500), atol=1)
    own = [groups(FrameVOILUTSequence={"WindowCenter": 50 * i, "WindowWidth": 40}) for i in range(3)]
    path = dicom(
        tmp_path / "x.dcm",
        frames,
        **TWELVE,
        **shared,
        PerFrameFunctionalGroupsSequence=own,
        **{"NumberOfFrames": 3, "Rows": 8, "Columns": 8},
    )
    np.testing.assert_allclose(decode(path, None, frame=3), linear(frames[2] * 2.0 - 100, 100, 40), atol=1)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_the_shape_of_presentation_inverts_once(tmp_path: Path, kind: str, shape: str) -> None:
    pixels = shown(tmp_path, gray(1), PhotometricInterpretation=kind, PresentationLUTShape=shape)
    upright = (kind, shape) == ("MONOCHROME2", "IDENTITY")
    np.testing.assert_array_equal(pixels, gray(1) if upright else 255 - gray(1))


def test_fewer_bits_span_black_to_white(tmp_path: Path) -> None:
    mask = gray(1) % 2
    one_bit = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    packed = {"PixelData": np.packbits(mask, bitorder="little").tobytes(), **one_bit}
    np.testing.assert_array_equal(shown(tmp_path, mask, **packed), mask * 255)
    np.testing.assert_array_equal(shown(tmp_path, mask, **packed, **MONOCHROME1), 255 - mask * 255)
    np.testing.assert_array_equal(shown(tmp_path, mask, BitsStored=1, HighBit=0), mask * 255)
    seven = gray(1) >> 1
    np.testing.assert_array_equal(shown(tmp_path, seven, BitsStored=7, HighBit=6), np.rint(seven * (255 / 127)))
    wide = shown(tmp_path, gray(1).astype(np.uint16), BitsStored=8, HighBit=7)
    assert wide.dtype == np.uint8
    np.testing.assert_array_equal(wide, gray(1))


def test_bits_that_are_not_stored_are_left_out(tmp_path: Path) -> None:
    overlay = (gray(2) % 2).astype(np.uint16) << 12
    np.testing.assert_array_equal(shown(tmp_path, twelve_bits() | overlay, **TWELVE), twelve_bits())
    signed = twelve_bits().astype(int) - 2048
    junk = (signed & 0xFFF | 0x5000).astype(np.uint16)
    np.testing.assert_array_equal(shown(tmp_path, junk, **TWELVE, PixelRepresentation=1), signed)
    with pytest.raises(UserError, match="has BitsStored 12 and HighBit 15: save it with HighBit 11"):
        shown(tmp_path, twelve_bits() << 4, BitsStored=12, HighBit=15)


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_point_pixels_are_refused(tmp_path: Path, keyword: str) -> None:
    path = dicom(tmp_path / "x.dcm", twelve_bits())
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    setattr(dataset, keyword, np.zeros((8, 8), np.float64).tobytes())
    dataset.save_as(path)
    with pytest.raises(UserError, match="has floating-point pixels: save it with 8 or 16 bits"):
        decode(path, None)


def test_what_is_no_image_or_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    rgb = np.stack([gray(i) for i in range(3)], axis=2)
    for kind in ("YBR_PARTIAL_422", "HSV", "CMYK", ""):
        with pytest.raises(
            UserError, match=r"the photometric interpretation \w+: save it as MONOCHROME2 or RGB"
        ):
            shown(tmp_path, rgb, **(RGB | {"PhotometricInterpretation": kind}))
    with pytest.raises(UserError, match=r"pixels of shape \(8, 8, 3\): save one gray or 8-bit RGB frame"):
        shown(tmp_path, rgb.astype(np.uint16), **RGB)
    for order in ({}, {"PlanarConfiguration": None}):
        tags = {key: value for key, value in RGB.items() if key != "PlanarConfiguration"} | order
        with pytest.raises(
            UserError, match=r"not say the order of its colours: save it with PlanarConfiguration 0"
        ):
            shown(tmp_path, rgb, **tags)
    path = dicom(tmp_path / "report.dcm", gray(1))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(UserError, match=r"report.dcm is DICOM without an image: remove it"):
        decode(path, None)
    with pytest.raises(
        UserError, match="claims to have 4294836225 pixels, 178956970 at most: save a smaller image"
    ):
        shown(tmp_path, gray(1), Rows=65535, Columns=65535)


def test_colours_of_every_coding_become_rgb(tmp_path: Path) -> None:
    # Pairs of equal pixels, because YBR_FULL_422 has one colour for two.
    rgb = np.stack([gray(i, (16, 8)) for i in range(3)], axis=2).repeat(2, axis=1)
    np.testing.assert_array_equal(
        shown(
            tmp_path, rgb.transpose(2, 0, 1), **(RGB | {"PlanarConfiguration": 1, "Rows": 16, "Columns": 16})
        ),
        rgb,
    )
    luma = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    full = shown(tmp_path, luma, **(RGB | {"PhotometricInterpretation": "YBR_FULL"}))
    np.testing.assert_allclose(full, rgb, atol=3)
    halved = np.stack([luma[:, ::2, 0], luma[:, 1::2, 0], luma[:, ::2, 1], luma[:, ::2, 2]], axis=2)
    tags = RGB | {"PhotometricInterpretation": "YBR_FULL_422", "Rows": 16, "Columns": 16}
    np.testing.assert_allclose(shown(tmp_path, halved, **tags), rgb, atol=3)


@pytest.mark.parametrize(
    ("syntax", "kind", "options"),
    [
        (JPEGBaseline8Bit, "YBR_FULL_422", {"format": "JPEG", "quality": 95}),
        (JPEGBaseline8Bit, "RGB", {"format": "JPEG", "quality": 95}),  # JFIF says YBR, against the tag
        (JPEG2000Lossless, "YBR_RCT", {"format": "JPEG2000", "mct": 1, "no_jp2": True}),
        (JPEG2000, "YBR_ICT", {"format": "JPEG2000", "mct": 1, "no_jp2": True, "irreversible": True}),
    ],
)
def test_compressed_colours_become_rgb_without_a_warning(
    tmp_path: Path, syntax: UID, kind: str, options: dict[str, Any]
) -> None:
    rgb = np.asarray(Image.radial_gradient("L").resize((32, 32)).convert("RGB")).copy()
    rgb[..., 1] //= 2
    packed = io.BytesIO()
    Image.fromarray(rgb).save(packed, **options)
    path = dicom(tmp_path / "x.dcm", rgb, **(RGB | {"PhotometricInterpretation": kind}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode(rewritten(path, syntax, packed.getvalue()), None)
    np.testing.assert_allclose(pixels, rgb, atol=16)


def test_other_orders_of_bytes_are_read(tmp_path: Path) -> None:
    indices = twelve_bits()
    colours_3N = np.random.default_rng(9).integers(0, 256, (3, 4096)).astype(np.uint16)
    tags = palette((colours_3N * 257).byteswap(), 16)
    path = dicom(tmp_path / "x.dcm", indices.byteswap(), **PALETTE, **TWELVE, **tags)
    dataset = pydicom.dcmread(path)
    big = Dataset()
    big.update({element.tag: element for element in dataset})
    big.file_meta = dataset.file_meta
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(decode(path, None), colours_3N[:, indices].transpose(1, 2, 0))


def test_run_lengths_of_a_palette_are_read(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x.dcm", gray(1), **PALETTE, **palette(COLOURS_3N, 8))
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(decode(path, None), COLOURS_3N[:, gray(1)].transpose(1, 2, 0))


@pytest.fixture
def without_extra() -> Iterator[None]:
    """pydicom with the decoders that are there without rlcas[dicom]."""
    removed = [
        (syntax, name)
        for syntax in (JPEGLSLossless, JPEGLossless, HTJ2K, JPEGExtended12Bit)
        for name in get_decoder(syntax).available_plugins
        if name != "pillow"
    ]
    for syntax, name in removed:
        get_decoder(syntax).remove_plugin(name)
    yield
    for syntax, name in removed:
        get_decoder(syntax).add_plugin(name, (f"pydicom.pixels.decoders.{name}", "_decode_frame"))


@pytest.mark.usefixtures("without_extra")
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLossless, HTJ2K, JPEGExtended12Bit])
def test_a_missing_decoder_names_the_extra(tmp_path: Path, syntax: UID) -> None:
    path = dicom(tmp_path / "x.dcm", twelve_bits(), **TWELVE)
    with pytest.raises(
        UserError, match=r"is packed as .*, whose decoder is missing: pip install rlcas\[dicom\], or save it"
    ):
        decode(rewritten(path, syntax, b"\xff\xd8\xff\xd9"), None)


def test_videos_are_refused(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x.dcm", gray(1))
    with pytest.raises(UserError, match=r"is packed as MPEG-4 .*, which is not read: save it uncompressed"):
        decode(rewritten(path, MPEG4HP41, b"\0\0"), None)


@pytest.mark.skipif(not get_decoder(JPEGLSLossless).is_available, reason="needs a decoder of rlcas[dicom]")
def test_jpeg_ls_is_read() -> None:
    np.testing.assert_array_equal(
        decode(DATA / "MR_small_jpeg_ls_lossless.dcm", None), decode(DATA / "MR_small.dcm", None)
    )


def lossless_jpeg(image: np.ndarray) -> bytes:
    """Return 8-bit gray as JPEG of process 14: the differences to the left neighbour, in codes of 4 bits and more."""
    before = np.concatenate([[[128]], image[:-1, :1]]).astype(int)
    differences = np.diff(image.astype(int), axis=1, prepend=before).ravel().tolist()
    bits = ""
    for difference in differences:
        size = abs(difference).bit_length()
        value = difference if difference > 0 else difference + 2**size - 1
        bits += f"{size:04b}" + (f"{value:0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    codes = b"\xff\xc4" + struct.pack(">HB16s9s", 28, 0, bytes([0, 0, 0, 9, *[0] * 12]), bytes(range(9)))
    frame = b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, 8, *image.shape, 1, 1, 0x11, 0)
    return b"\xff\xd8" + codes + frame + b"\xff\xda\0\x08\x01\x01\0\x01\0\0" + scan + b"\xff\xd9"


@pytest.mark.skipif(not get_decoder(JPEGLossless).is_available, reason="needs a decoder of rlcas[dicom]")
def test_lossless_jpeg_is_read(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x.dcm", gray(1))
    np.testing.assert_array_equal(decode(rewritten(path, JPEGLossless, lossless_jpeg(gray(1))), None), gray(1))


@pytest.mark.skipif(
    "pylibjpeg" not in get_decoder(JPEGExtended12Bit).available_plugins,
    reason="needs a decoder of rlcas[dicom]",
)
def test_jpeg_of_12_bits_is_read() -> None:
    assert decode(DATA / "JPGExtended.dcm", None).max() > 255


def cine(path: Path, num_frames: int = 4) -> Path:
    frames = np.stack([gray(i) for i in range(num_frames)])
    return dicom(path, frames, NumberOfFrames=num_frames, Rows=8, Columns=8)


@pytest.mark.parametrize(("frame", "index"), [("first", 0), ("middle", 2), (1, 0), (2, 1), (4, 3)])
def test_a_frame_is_chosen(tmp_path: Path, frame: Any, index: int) -> None:
    for split in ("train", "val", "test"):
        for name in "ab":
            cine(tmp_path / split / name / "0.dcm")
            dicom(tmp_path / split / name / "still.dcm", gray(9))
    data = load(config(f"folder:{tmp_path}", frame=frame))
    np.testing.assert_array_equal(data.train.images_NCHW[0, 0], gray(index))
    np.testing.assert_array_equal(data.train.images_NCHW[1, 0], gray(9))


def test_a_frame_that_is_not_there_or_not_chosen_is_refused(tmp_path: Path) -> None:
    path = cine(tmp_path / "x.dcm")
    with pytest.raises(
        UserError, match=r"dataset.frame is 5, but .*x.dcm has 4 frames: choose 1 to 4, first or"
    ):
        decode(path, None, frame=5)
    with pytest.raises(
        UserError, match=r"pixels of shape \(4, 8, 8\): .*--dataset.frame first, middle or its number"
    ):
        decode(path, None)
    # However many frames there are, one of them may be small enough.
    with pytest.raises(
        UserError, match=r"pixels of shape \(9999, 800, 800\): .*--dataset.frame first, middle or its"
    ):
        shown(tmp_path, gray(1), NumberOfFrames=9999, Rows=800, Columns=800)
    # Two frames of three columns are no RGB image.
    narrow = dicom(tmp_path / "y.dcm", np.zeros((2, 4, 3), np.uint8), NumberOfFrames=2, Rows=4, Columns=3)
    with pytest.raises(UserError, match=r"pixels of shape \(2, 4, 3\)"):
        decode(narrow, None)
    for wrong in (0, "last", 2.5):
        with pytest.raises(ValueError, match=r"frame"):
            config("phantom", frame=wrong)


def test_dicom_is_found_by_its_content(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in "ab":
            folder = tmp_path / split / name
            for i, file in enumerate(("IM000001", "1.2.840.113619.2", "x.IMA", "X.DCM")):
                dicom(folder / file, gray(i), WindowCenter=128, WindowWidth=256)
            (folder / "notes").write_text("no image")
            dicom(folder / "DICOMDIR", gray(1))
    data = load(config(f"folder:{tmp_path}"))
    assert len(data.train) == 8
    assert data.notes[0].startswith(
        "left out, because they are not image files: 12 (train/a/DICOMDIR, train/a/notes"
    )
    assert data.notes[1].startswith("DICOM files are shown with their own window")
    table = tmp_path / "set.csv"
    rows = [f"{split}/{name}/IM000001,{name},{split}" for split in ("train", "val", "test") for name in "ab"]
    table.write_text("path,label,split\n" + "\n".join(rows) + "\n")
    data = load(config(f"csv:{table}"))
    assert data.notes[0].startswith("DICOM files are shown with their own window")
    assert np.ptp(data.train.images_NCHW) > 200


def test_a_deflated_file_is_not_inflated_for_its_patient(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.zeros((4, 4), np.uint8), PatientID="p7")
    assert patient_id(path) == "p7"
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DEFLATED
    dataset.save_as(path, enforce_file_format=True)
    assert pydicom.dcmread(path).PatientID == "p7" and patient_id(path) == ""
