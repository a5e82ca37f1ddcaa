"""Broken files as hypothesis strategies: whole ones with bytes changed, and odd ones whose outer form is right."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

Files = st.SearchStrategy[bytes]
Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30)
WORDS = struct.Struct("<Q")
TEXTS = (
    "", "0", "a\nb", "../../etc/passwd", "os:system", "nan", "\ud7ff", "%s%n{0}", "s3://KEY:SECRET@b/x", "x" * 300,
)  # fmt: skip
NESTS = ("[" * 3000, '{"a":' * 3000, "[" * 500 + "]" * 500)


@st.composite
def damaged(draw: Draw, whole: bytes) -> bytes:
    """Return `whole` after one to four edits: bits turned, bytes cut, put in, written over or taken twice."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(1, 16))
        edit = draw(st.sampled_from(("turn", "cut", "drop", "put", "number", "twice")))
        if edit == "turn" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif edit == "cut":
            del content[at:]
        elif edit == "drop":
            del content[at : at + length]
        elif edit == "put":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif edit == "number":
            content[at : at + 8] = WORDS.pack(draw(st.sampled_from(NUMBERS)) % 2**64)[: draw(st.integers(1, 8))]
        elif edit == "twice":
            content[at:at] = content[at : at + length]
    return bytes(content)


def noise() -> Files:
    """Return bytes without any form."""
    return st.binary(max_size=200)


def odd_values() -> st.SearchStrategy[Any]:
    """Return JSON values that a reader does not expect at their place."""
    leaves = st.one_of(
        st.sampled_from((None, True, False, *NUMBERS, *TEXTS)),
        st.floats(),
        st.text(max_size=5),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=4,
    )


@st.composite
def odd_tree(draw: Draw, whole: Any) -> Any:
    """Return a copy of a JSON value in which one to three places hold something else, or nothing."""
    tree = [copy.deepcopy(whole)]
    for _ in range(draw(st.integers(1, 3))):
        branch, key = _place(draw, tree)
        edit = draw(st.sampled_from(("set", "set", "drop", "again", "number")))
        if edit == "set" or branch is tree:
            branch[key] = draw(odd_values())
        elif edit == "number":
            branch[key] = draw(st.sampled_from(NUMBERS))
        elif edit == "drop":
            del branch[key]
        elif isinstance(branch, list):
            branch.append(copy.deepcopy(branch[key]))
        else:
            branch[draw(st.sampled_from(TEXTS))] = branch[key]
    return tree[0]


def _place(draw: Draw, tree: list[Any]) -> tuple[Any, Any]:
    """Return a container of the tree and a key in it."""
    branch, key = tree, 0
    while isinstance(branch[key], dict | list) and branch[key] and draw(st.integers(0, 3)):
        branch = branch[key]
        key = draw(st.sampled_from(sorted(branch))) if isinstance(branch, dict) else draw(_index(branch))
    return branch, key


def _index(items: list[Any]) -> st.SearchStrategy[int]:
    return st.integers(0, len(items) - 1)


def json_files(whole: Any) -> Files:
    """Return JSON with odd values at places, with damaged bytes, or nested without end."""
    return st.one_of(
        odd_tree(whole).map(dumped),
        odd_tree(whole).map(dumped),
        damaged(dumped(whole)),
        st.sampled_from(NESTS).map(str.encode),
        noise(),
    )


def dumped(value: Any) -> bytes:
    """Return JSON, with NaN as Python writes it."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def json_lines(draw: Draw, lines: list[Any]) -> bytes:
    """Return a .jsonl file with one broken line."""
    broken = draw(_index(lines))
    contents = [draw(json_files(line)) if i == broken else dumped(line) for i, line in enumerate(lines)]
    return b"\n".join(contents) + b"\n"


YAML_PIECES = (
    "&a", "*a", "!!int", "!!float", "!!timestamp", "!!binary", "!!python/object/apply:os.system", "!!bool", "!!set",
    "!!omap", "!!null", "<<:", "2026-13-45", "1:2:3", "0x", "0b2", "1_0", ".inf", ".nan", "~", "? [a]", "{", "[", "}",
    "]", "|", ">", "---", "...", "%YAML 9.9", "\t", "\0", "'", '"', "#", ":", "- ", "\u2028", "🦴",
)  # fmt: skip


@st.composite
def yaml_files(draw: Draw, whole: dict[str, Any]) -> bytes:
    """Return settings with odd values, pieces of YAML at the places of values, aliases of aliases, or damage."""
    kind = draw(st.sampled_from(("tree", "tree", "pieces", "bomb", "damage", "noise")))
    if kind == "tree":
        return dumped(draw(odd_tree(whole)))
    if kind == "pieces":
        keys = st.sampled_from((*whole, "sampler.k", "nonsense", "data.x", ""))
        pieces = st.lists(st.sampled_from((*YAML_PIECES, *TEXTS)), max_size=4).map(" ".join)
        lines = draw(st.lists(st.tuples(keys, pieces), min_size=1, max_size=5))
        return "\n".join(f"{key}: {piece}" for key, piece in lines).encode("utf-8", "surrogatepass")
    if kind == "bomb":
        levels, key = draw(st.integers(2, 30)), draw(st.sampled_from((*whole, "nonsense")))
        nests = [f"&a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
        return f"{key}: [&a0 [x], {', '.join(nests)}]\n".encode()
    return draw(
        damaged(dumped(whole))
        if kind == "damage"
        else st.one_of(noise(), st.sampled_from(NESTS).map(str.encode))
    )


DTYPES = (
    "|u1", "<i8", "<f8", "<f4", "|b1", "<u2", ">i4", "<c16", "|O", "<U5", "|S3", "<M8[s]", "<m8[ns]", "|V4", "<f2",
)  # fmt: skip


@st.composite
def npy_files(draw: Draw, array: np.ndarray) -> bytes:
    """Return a .npy file: of another dtype or shape, or whose header claims what the file does not hold."""
    kind = draw(st.sampled_from(("other", "claim", "damage")))
    if kind == "damage":
        return draw(damaged(npy(array)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4))) if draw(st.booleans()) else array.shape
    if kind == "other":
        return npy(_filled(shape, np.dtype(draw(st.sampled_from(DTYPES)))))
    claimed = tuple(draw(st.lists(st.sampled_from(NUMBERS), max_size=4))) if draw(st.booleans()) else shape
    header = {
        "descr": draw(st.sampled_from((*DTYPES, array.dtype.str))),
        "fortran_order": False,
        "shape": claimed,
    }
    return npy_header(header) + array.tobytes()


def npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file; objects are pickled, as a stranger may have done."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npy_header(header: dict[str, Any]) -> bytes:
    """Return the header of a .npy file with these values."""
    text = repr(header).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _filled(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind == "O":
        return np.full(shape, {}, dtype)
    return np.resize(np.arange(7).astype("u1"), shape).astype(dtype if dtype.kind not in "V" else "u1")


@st.composite
def npz_files(draw: Draw, arrays: dict[str, np.ndarray]) -> bytes:
    """Return an npz file in which one or two arrays are broken, missing or doubled."""
    members = {name: npy(array) for name, array in arrays.items()}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(arrays)))
        edit = draw(st.sampled_from(("npy", "npy", "npy", "drop", "noise", "rename")))
        if edit == "npy":
            members[name] = draw(npy_files(arrays[name]))
        elif edit == "drop":
            members.pop(name, None)
        elif edit == "noise":
            members[name] = draw(noise())
        else:
            members[draw(st.sampled_from(("class_names", "train_patients", "x", "../x")))] = npy(arrays[name])
    content = zipped(members, draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    return draw(damaged(content)) if draw(st.integers(0, 2)) == 0 else content


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return members as a zip file, as numpy.savez names them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@st.composite
def safetensors_files(draw: Draw, whole: bytes) -> bytes:
    """Return a safetensors file with a wrong header, or damaged."""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged(whole))
    (length,) = WORDS.unpack(whole[:8])
    header = json.loads(whole[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    if metadata and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(metadata)))
        changed = draw(odd_tree(json.loads(metadata[name])))
        header["__metadata__"] = {**metadata, name: json.dumps(changed)}
    else:
        header = draw(odd_tree(header))
    text = dumped(header)
    claimed = draw(st.sampled_from((len(text),) * 9 + (0, 2**63, len(text) + 9)))
    return WORDS.pack(claimed) + text + whole[8 + length :]


CELLS = (
    "0",
    "1",
    "a/0.png",
    "b/1.png",
    "none.png",
    "..",
    "train",
    "VAL",
    "test",
    "all",
    '"',
    "'",
    "\0",
    ",",
    "é",
    " ",
)


@st.composite
def csv_files(draw: Draw, whole: bytes) -> bytes:
    """Return a table with other columns, cells or separators, or damaged."""
    if draw(st.booleans()):
        return draw(damaged(whole))
    names = st.sampled_from(("path", "label", "patient_id", "split", "", "x", " path"))
    rows = st.lists(st.lists(st.sampled_from((*CELLS, *TEXTS)), max_size=5), max_size=5)
    table = [draw(st.lists(names, max_size=5)), *draw(rows)]
    separator, end = draw(st.sampled_from((",", ",", ";", "\t"))), draw(st.sampled_from(("\n", "\r\n", "\r")))
    mark = draw(st.sampled_from((b"", b"\xef\xbb\xbf", b"\xff\xfe")))
    return mark + end.join(separator.join(row) for row in table).encode("utf-8", "surrogatepass")


@st.composite
def png_files(draw: Draw, whole: bytes) -> bytes:
    """Return a PNG whose chunks are odd but have the right checksums, or that is damaged."""
    if draw(st.booleans()):
        return draw(damaged(whole))
    sides = st.sampled_from((0, 1, 8, 9, 65_535, 2**31 - 1, 2**32 - 1))
    depth, colour = draw(st.sampled_from((0, 1, 2, 4, 8, 16, 3))), draw(st.sampled_from((0, 2, 3, 4, 6, 1)))
    head = struct.pack(
        ">IIBBBBB", draw(sides), draw(sides), depth, colour, 0, 0, draw(st.sampled_from((0, 1, 2)))
    )
    pixels = zlib.compress(b"\0" * draw(st.sampled_from((0, 72, 10_000))))
    kinds = st.sampled_from(
        (b"tEXt", b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"gAMA", b"pHYs")
    )
    extra = draw(st.lists(st.tuples(kinds, st.binary(max_size=20)), max_size=3))
    chunks = [(b"IHDR", head), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
