"""PNG, TIFF and other pictures whose values, channels or pages Pillow alone would change: right values, or one line."""

from __future__ import annotations

import struct
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_files import config, dicom, gray, write_image
from PIL import Image

from rlcas.data import load
from rlcas.data.decode import decode
from rlcas.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 4096, (8, 9, 3)).astype(np.uint16)
"""12 bits in 16, as cameras write them."""
GRAY = RNG.integers(0, 2**16, (8, 9)).astype(np.uint16)
ALPHA = np.full((8, 9, 1), 65535, np.uint16)


def write_png(path: Path, image: np.ndarray, *chunks: tuple[bytes, bytes]) -> Path:
    """Write 16 bits a sample, which Pillow cannot."""
    height, width = image.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if image.ndim == 2 else image.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


def write_tiff(path: Path, image: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, image, **options)
    return path


def same(pixels: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype.isnative


def test_a_png_of_16_bits_keeps_its_values(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    same(decode(write_png(path, RGB), None), RGB)
    same(decode(write_png(path, np.concatenate([RGB, ALPHA], axis=2)), None), RGB)
    same(decode(write_png(path, np.concatenate([GRAY[..., None], ALPHA], axis=2)), None), GRAY)
    same(decode(write_png(path, GRAY), None), GRAY)
    same(decode(write_png(path, GRAY, (b"tRNS", b"\0\5")), None), GRAY)
    same(decode(write_png(path, RGB, (b"tRNS", b"\0\5\0\5\0\5")), None), RGB)
    turned = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    same(decode(write_png(path, RGB, (b"eXIf", turned)), None), np.rot90(RGB, -1))


@pytest.mark.parametrize("colour", [RGB, np.concatenate([GRAY[..., None], ALPHA], axis=2)])
def test_wide_images_of_a_folder_span_the_training_range(tmp_path: Path, colour: np.ndarray) -> None:
    for split in ("train", "val", "test"):
        for name in "ab":
            write_png(tmp_path / split / name / "0.png", colour)
    data = load(config(f"folder:{tmp_path}"))
    values = colour if colour.shape[2] == 3 else colour[..., :1]
    low, high = int(values.min()), int(values.max())
    expected = np.rint(255 * ((values.astype(float) - low) / (high - low)))
    np.testing.assert_array_equal(data.train.images_NCHW[0].transpose(1, 2, 0), expected)
    assert f"values {low}..{high} (the training images' range)" in data.notes[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib", "predictor": True},
        {"planarconfig": "separate"},
        {"tile": (16, 16)},
        {"bigtiff": True},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32])
def test_a_tiff_of_wide_colours_keeps_its_values(tmp_path: Path, options: dict[str, Any], dtype: type) -> None:
    image = RGB.astype(dtype)
    stored = image.transpose(2, 0, 1) if "planarconfig" in options else image
    same(decode(write_tiff(tmp_path / "x.tif", stored, photometric="rgb", **options), None), image)


def test_transparency_of_a_wide_tiff_is_left_out(tmp_path: Path) -> None:
    rgba, gray_alpha = np.concatenate([RGB, ALPHA], axis=2), np.concatenate([GRAY[..., None], ALPHA], axis=2)
    path = write_tiff(tmp_path / "x.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    same(decode(path, None), RGB)
    path = write_tiff(tmp_path / "x.tif", gray_alpha, photometric="minisblack", extrasamples=["unassalpha"])
    same(decode(path, None), GRAY)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "int8"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_gray_tiff_keeps_its_signs_and_its_order(
    tmp_path: Path, dtype: str, photometric: str, compression: str | None, byteorder: Any
) -> None:
    limits = np.iinfo(dtype)
    values = np.random.default_rng(1).integers(limits.min, limits.max, (8, 9), endpoint=True).astype(dtype)
    path = write_tiff(
        tmp_path / "x.tif", values, photometric=photometric, compression=compression, byteorder=byteorder
    )
    wide = values.astype(np.int64)
    same(decode(path, None), wide if photometric == "minisblack" else limits.max + limits.min - wide)
    assert decode(path, None).dtype != np.uint8


def test_bits_and_bytes_of_a_gray_tiff_keep_their_order(tmp_path: Path) -> None:
    mask = gray(1) > 100
    same(decode(write_tiff(tmp_path / "x.tif", mask, photometric="minisblack"), None), mask * np.uint8(255))
    same(decode(write_tiff(tmp_path / "x.tif", mask, photometric="miniswhite"), None), ~mask * np.uint8(255))
    path = write_tiff(tmp_path / "x.tif", 255 - gray(1), photometric="miniswhite")
    same(decode(path, None), gray(1))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_of_floating_point_is_refused(tmp_path: Path, dtype: str, channels: int) -> None:
    image = np.zeros((8, 9, 3), dtype)
    stored = image if channels == 3 else image[..., 0]
    path = write_tiff(tmp_path / "x.tif", stored, photometric="rgb" if channels == 3 else "minisblack")
    with pytest.raises(UserError, match="has floating-point pixels: save it with 8 or 16 bits"):
        decode(path, None)


def test_tiffs_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    write_tiff(path, np.zeros((8, 9, 4), np.uint16), photometric="separated")
    with pytest.raises(
        UserError, match="SEPARATED pixels of 4 x 16 bits: save it as gray or RGB of 8 or 16 bits"
    ):
        decode(path, None)
    write_tiff(path, RGB, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UserError, match="MINISBLACK pixels of 3 x 16 bits"):
        decode(path, None)
    write_tiff(path, RGB.astype(np.uint8), photometric="cielab")
    with pytest.raises(UserError, match="has CIELAB pixels: save it as RGB"):
        decode(path, None)
    write_tiff(path, RGB.astype(np.int16), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(60_000)
    with pytest.raises(
        UserError, match="claims to have 3600000000 pixels, 178956970 at most: save a smaller image"
    ):
        decode(path, None)


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="imagecodecs unpacks LZW")
def test_a_missing_unpacker_is_named(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", RGB.astype(np.int16), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(tifffile.COMPRESSION.LZW)
    with pytest.raises(
        UserError,
        match="is TIFF of 16 bits packed by LZW, which needs imagecodecs: pip install imagecodecs, or save it unc",
    ):
        decode(path, None)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("StripByteCounts", 100, "it has 100 of 432 bytes of pixels"),
        ("StripByteCounts", 0, "it has 0 of 432 bytes of pixels"),
        ("ImageLength", 80, "it has 432 of 4320 bytes of pixels"),
        ("ImageLength", 0, "it has 432 of 0 bytes of pixels"),
        ("StripOffsets", 10**6, "failed to read 432 bytes"),
    ],
)
def test_a_tiff_without_all_its_pixels_is_refused(tmp_path: Path, tag: str, value: int, message: str) -> None:
    path = write_tiff(tmp_path / "x.tif", RGB.astype(np.int16), photometric="rgb", rowsperstrip=8)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[tag].overwrite(value)
    with pytest.raises(UserError, match=rf"cannot be read as an image \({message}"):
        decode(path, None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_set_upright_whatever_reads_it(tmp_path: Path, orientation: int) -> None:
    tags = [(274, "H", 1, orientation, True)]
    narrow = write_tiff(tmp_path / "8.tif", RGB.astype(np.uint8), photometric="rgb", extratags=tags)
    wide = write_tiff(tmp_path / "16.tif", RGB, photometric="rgb", extratags=tags)
    np.testing.assert_array_equal(decode(wide, None).astype(np.uint8), decode(narrow, None))
    one = write_tiff(tmp_path / "gray.tif", RGB[..., 0], extratags=tags)
    np.testing.assert_array_equal(decode(one, None), decode(wide, None)[..., 0])


def test_equal_values_are_equal_images_in_every_order_of_bytes(tmp_path: Path) -> None:
    for split, byteorder in (("train", "<"), ("val", ">"), ("test", "<")):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            write_tiff(tmp_path / split / name / "0.tif", GRAY + ord(name), byteorder=byteorder)
    notes = " ".join(load(config(f"folder:{tmp_path}")).notes)
    assert "train/a/0.tif = val/a/0.tif" in notes


def test_colours_of_palettes_and_print_become_rgb_without_a_warning(tmp_path: Path) -> None:
    rgb = np.stack([gray(i) // 64 * 64 for i in range(3)], axis=2)
    palette = Image.fromarray(rgb).quantize(64)
    palette.save(tmp_path / "x.png", transparency=bytes(64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(tmp_path / "x.png", None), np.asarray(palette.convert("RGB")))
    ink = Image.merge("CMYK", [*(Image.fromarray(255 - rgb[..., i]) for i in range(3)), Image.new("L", (8, 8))])
    ink.save(tmp_path / "x.tif")
    np.testing.assert_array_equal(decode(tmp_path / "x.tif", None), rgb)


def test_formats_that_would_lose_bits_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"P6 9 8 4095 " + RGB.astype(">u2").tobytes())
    with pytest.raises(UserError, match=r"x.png is PPM, PGM or PBM, which is not read: save it as PNG$"):
        decode(tmp_path / "x.png", None)


@pytest.mark.parametrize(("suffix", "form"), [("jp2", "JPEG 2000"), ("ppm", "PPM, PGM or PBM"), ("tga", "TGA")])
def test_a_picture_of_another_form_is_refused_with_how_to_save_it(
    tmp_path: Path, suffix: str, form: str
) -> None:
    Image.fromarray(gray(1)).save(tmp_path / f"x.{suffix}")
    with pytest.raises(UserError, match=rf"x.{suffix} is {form}, which is not read: save it as PNG$"):
        decode(tmp_path / f"x.{suffix}", None)


def test_a_name_that_hides_the_form_is_refused_with_the_form(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.png is DICOM: rename it to x.dcm$"):
        decode(dicom(tmp_path / "x.png", gray(1)), None)
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(UserError, match=r"x.jpg is HEIC or AVIF, which is not read: save it as PNG$"):
        decode(tmp_path / "x.jpg", None)
    for content in (b"no picture", bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(30)):
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(UserError, match=r"x.jpg cannot be read as an image .*: replace or remove it$"):
            decode(tmp_path / "x.jpg", None)


def test_a_cameras_photograph_is_the_first_picture_of_its_file(tmp_path: Path) -> None:
    photograph, preview = (Image.fromarray(gray(i, (16 // i, 16 // i))) for i in (1, 2))
    photograph.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[preview], quality=100)
    photograph.save(tmp_path / "one.jpg", quality=100)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2  # type: ignore[attr-defined]
    for frame in (None, "middle"):
        same(decode(tmp_path / "x.jpg", None, frame=frame), decode(tmp_path / "one.jpg", None))


@pytest.mark.parametrize(("frame", "index"), [("first", 0), ("middle", 2), (2, 1), (4, 3)])
def test_a_page_is_chosen(tmp_path: Path, frame: Any, index: int) -> None:
    pages = [RGB + i for i in range(4)]
    path = write_tiff(tmp_path / "wide.tif", np.stack(pages), photometric="rgb")
    same(decode(path, None, frame=frame), pages[index])
    path = write_tiff(
        tmp_path / "gray.tif", np.stack([GRAY // 2 + i for i in range(4)]), photometric="minisblack"
    )
    same(decode(path, None, frame=frame), GRAY // 2 + index)
    path = write_tiff(
        tmp_path / "signed.tif", np.stack([RGB.astype(np.int16) + i for i in range(4)]), photometric="rgb"
    )
    same(decode(path, None, frame=frame), pages[index])
    images = [Image.fromarray(gray(i)) for i in range(4)]
    images[0].save(tmp_path / "x.gif", save_all=True, append_images=images[1:])
    np.testing.assert_array_equal(
        decode(tmp_path / "x.gif", None, frame=frame), np.stack([gray(index)] * 3, axis=2)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_a_page_that_is_not_there_or_not_chosen_is_refused(tmp_path: Path, dtype: type) -> None:
    path = write_tiff(tmp_path / "x.tif", np.zeros((3, 8, 9, 3), dtype), photometric="rgb")
    with pytest.raises(
        UserError,
        match=r"x.tif has 3 pages: save each page as a file, or choose one with --dataset.frame first, mid",
    ):
        decode(path, None)
    with pytest.raises(
        UserError, match=r"dataset.frame is 4, but .*x.tif has 3 frames: choose 1 to 3, first or mid"
    ):
        decode(path, None, frame=4)


def test_an_animation_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "x.png", RGB, (b"acTL", struct.pack(">II", 2, 0)))
    with pytest.raises(UserError, match=r"x.png has 3 pages: save each page as a file"):
        decode(path, None, frame=2)


def test_a_still_is_read_whatever_the_frame(tmp_path: Path) -> None:
    same(decode(write_image(tmp_path / "x.png", gray(1)), None, frame=7), gray(1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "tif", "tif packed"])
def test_a_wide_file_altered_or_truncated_anywhere_is_read_or_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"damaged.{kind[:3]}"
    options = {"compression": "zlib"} if "packed" in kind else {}
    write_png(path, RGB) if kind == "png" else write_tiff(
        path, RGB.astype(np.int16), photometric="rgb", **options
    )
    whole = path.read_bytes()
    rng, num_refused = np.random.default_rng(0), 0
    for trial in range(300):
        at = int(rng.integers(min(len(whole), 400)))
        path.write_bytes(whole[:at] + (b"" if trial % 5 == 0 else rng.bytes(1) + whole[at + 1 :]))
        try:
            assert decode(path, None).ndim in (2, 3)
        except UserError as error:
            num_refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert num_refused > 20
