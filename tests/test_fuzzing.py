"""A few hundred broken files for every reader, and the worst kinds by hand; `make fuzz` tries a hundred thousand."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from broken_files import damaged, npy, npy_header, png_chunk, zipped
from data_files import arrays, config, dicom, gray, write_image
from fuzzed_readers import READERS
from fuzzing import Hang, Reader, examples, fuzz, refuses
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from rlcas import settings
from rlcas.comparison.cell import read_predictions
from rlcas.data import load
from rlcas.data.npz import open_npz
from rlcas.errors import UserError
from rlcas.reports.facts import read_run
from rlcas.runs.epoch_log import check_epochs, read_epochs, read_lines
from rlcas.runs.sweep_folder import read_sweep
from rlcas.storage import reading

INPUTS = 60


@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_every_broken_file_in_one_line_and_neither_crashes_nor_hangs(
    name: str, tmp_path: Path
) -> None:
    reader = READERS[name](tmp_path)
    reader.read()
    tally = fuzz(reader, tmp_path, INPUTS, seed=0)
    assert tally.inputs >= INPUTS and tally.refused > INPUTS / 4


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    contents = READERS["csv"](tmp_path).contents
    files = examples(contents, 20, seed=7)
    assert files == examples(contents, 20, seed=7) and len(set(files)) > 10
    assert files != examples(contents, 20, seed=8)


def test_a_reader_that_raises_or_hangs_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = READERS["csv"](tmp_path)

    def faulty() -> None:
        raise KeyError("x")

    def hanging() -> None:
        while True:
            pass

    def silent() -> None:
        raise UserError("something is wrong: correct it")

    monkeypatch.setattr("fuzzing.HANG_SECONDS", 0.05)
    for read, found in ((faulty, KeyError), (hanging, Hang), (silent, AssertionError)):
        with pytest.raises(found):
            refuses(type(reader)(file=reader.file, contents=reader.contents, read=read), tmp_path, b"")


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore::FutureWarning:fuzz")
def test_a_reader_that_raises_is_found_by_atheris_which_keeps_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("atheris")
    import fuzz as benchmark

    def faulty(folder: Path) -> Reader:
        (folder / "x.csv").write_bytes(b"whole")
        return Reader(
            file="x.csv",
            contents=damaged(b"whole"),
            read=lambda: {b"": 0}[(folder / "x.csv").read_bytes()],
        )

    monkeypatch.setitem(READERS, "csv", faulty)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^csv: atheris found a file that it fails at: broken-csv\.csv$"):
        benchmark.by_atheris("csv", 10, seed=0)
    assert (tmp_path / "broken-csv.csv").read_bytes()


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/nowhere/owned"),))


def test_an_object_array_in_a_pool_a_preparation_or_a_cell_is_never_unpickled(tmp_path: Path) -> None:
    poisoned = npy(np.array([Evil()], object))
    (tmp_path / "x.npy").write_bytes(poisoned)
    with pytest.raises(UserError, match=r"x\.npy is missing, truncated or altered .*: do so$"):
        reading.open_array(tmp_path / "x.npy", "do so")
    (tmp_path / "test.npz").write_bytes(zipped({"probabilities": poisoned, "labels": poisoned}))
    with pytest.raises(UserError, match=r"test\.npz is damaged \(.*\): delete .*, then resume the comparison"):
        read_predictions(tmp_path)
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"x\.npy is missing, truncated or altered"):
        reading.open_array(tmp_path / "x.npy", "do so")
    (tmp_path / "x.npy").write_bytes(zipped({"a": npy(np.zeros(2))}))
    with pytest.raises(UserError, match=r"altered \(it holds several arrays\)"):
        reading.open_array(tmp_path / "x.npy", "do so")
    (tmp_path / "test.npz").write_bytes(npy(np.zeros(2)))
    with pytest.raises(UserError, match=r"damaged \(it is not an npz file\)"):
        reading.read_arrays(tmp_path / "test.npz", "do so")


def test_an_npz_that_unpacks_to_more_than_the_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(
        tmp_path / "bomb.npz", **{**arrays(), "train_images": np.zeros((12, 800, 800), np.uint8)}
    )
    assert (tmp_path / "bomb.npz").stat().st_size < 30_000
    monkeypatch.setattr(reading, "available_memory_bytes", lambda: 5e6)
    with pytest.raises(
        UserError, match=r"bomb\.npz: train_images takes 0\.0 GB of memory, but 0\.0 GB are free: check"
    ):
        load(config(f"npz:{tmp_path / 'bomb.npz'}"))


def test_a_header_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    claim = npy_header({"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**13, 2**13)})
    members = {name: npy(array) for name, array in arrays().items()}
    (tmp_path / "set.npz").write_bytes(zipped({**members, "train_images": claim + bytes(64)}))
    with pytest.raises(UserError, match=r"set\.npz: train_images is truncated or altered"):
        load(config(f"npz:{tmp_path / 'set.npz'}"))


def test_a_picture_that_claims_gigapixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate("ab"):
            write_image(tmp_path / split / name / "0.png", gray(number))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    bomb = tmp_path / "train" / "a" / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixels + png_chunk(b"IEND", b""))
    with pytest.raises(
        UserError, match=r"bomb\.png cannot be read as an image \(.*exceeds limit.*replace or remove"
    ):
        load(config(f"folder:{tmp_path}"))
    bomb.unlink()
    dicom(tmp_path / "train" / "a" / "bomb.dcm", gray(1), Rows=65_535, Columns=65_535)
    with pytest.raises(
        UserError, match=r"bomb\.dcm claims to have 4294836225 pixels, 178956970 at most: save a smaller"
    ):
        load(config(f"folder:{tmp_path}"))


def test_deflated_dicom_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    dataset = dcmread(dicom(tmp_path / "x.dcm", gray(1)))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    for split in ("train", "val"):
        for number, name in enumerate("ab"):
            write_image(tmp_path / "set" / split / name / "0.png", gray(number))
    dataset.save_as(tmp_path / "set" / "train" / "a" / "1.dcm")
    with pytest.raises(UserError, match=r"1\.dcm is deflated DICOM, .*: save it uncompressed"):
        load(config(f"folder:{tmp_path / 'set'}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 2026-13-45", r"x\.yaml is not YAML: month must be in 1\.\.12: correct the file"),
        ("seed: !!int", r"x\.yaml is not YAML: .*: correct the file"),
        ("seed: !!timestamp x", r"x\.yaml is not YAML: .*: correct the file"),
        ("[" * 60_000, r"x\.yaml is not YAML: it nests deeper than 50 levels: correct the file"),
        ("? " * 30_000, r"x\.yaml is not YAML: it nests deeper than 50 levels: correct the file"),
        ("seed: !!python/object/apply:os.system [x]", r"x\.yaml is not YAML: could not determine a constructor"),
        ("# " + "x" * 300_000, r"x\.yaml has 300002 bytes, settings 65536 at most: name another file"),
        ("seed: [&a0 x" + "".join(f",&a{i} [*a{i - 1},*a{i - 1}]" for i in range(1, 40)) + "]", "over 100000 values"),
        ("seed: [" + "x, " * 2000 + "]", r"^seed is \['x', 'x', 'x', 'x', \.\.\.\]: input should be a valid integer"),
        ('"\\ud83e\\udd2d": s3://KEY:SECRET@b/x', r"x\.yaml is not YAML: '\\ud83e\\udd2d' holds half a char"),
        ('"a\\nb\\e[2J": 1', r"^unknown setting a b\\x1b\[2J: "),
    ],
)  # fmt: skip
def test_settings_that_yaml_cannot_read_are_an_error_of_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        settings.resolve(given={}, file=tmp_path / "x.yaml")
    assert len(str(raised.value)) < 600 and len(str(raised.value).splitlines()) == 1


def test_a_damaged_line_of_a_log_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    for text, message in (
        (
            '{"epoch": 1}\n[1]\n',
            r"epochs\.jsonl line 2 is damaged \(it is not a JSON object\): restore or delete it",
        ),
        ('{"epoch": 1}\n{"epoch\n', r"epochs\.jsonl line 2 is damaged \(.*\): restore or delete it"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_epochs(tmp_path)
    path.write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(UserError, match=r"epochs\.jsonl is damaged \(.*decode.*\): restore or delete it"):
        read_lines(path)


def test_epochs_of_other_lengths_and_figures_of_other_kinds_are_refused(tmp_path: Path) -> None:
    READERS["epochs"](tmp_path)
    lines = read_epochs(tmp_path)
    lines[1]["winner"] = 99
    with pytest.raises(UserError, match=r"epochs\.jsonl line 2 is altered \(its lists have other lengths\)"):
        check_epochs(lines, tmp_path / "epochs.jsonl")
    (tmp_path / "metrics.json").write_text('{"seconds": {"data": "long"}}')
    with pytest.raises(
        UserError, match=r"metrics\.json is truncated or altered \(seconds\.data: .*\): restore or"
    ):
        read_run(tmp_path)


def test_a_gallery_without_images_is_refused(tmp_path: Path) -> None:
    READERS["run_gallery"](tmp_path)
    np.savez(tmp_path / "gallery.npz", real=np.zeros(3))
    with pytest.raises(
        UserError, match=r"gallery\.npz is altered \(it holds no images by class\): restore or delete"
    ):
        read_run(tmp_path)


def test_trials_of_other_settings_are_refused(tmp_path: Path) -> None:
    READERS["sweep"](tmp_path)
    path = tmp_path / "sweep.json"
    facts = json.loads(path.read_text())
    facts["trials"][1]["settings"] = {"sampler.lr": 1}
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"sweep\.json is altered \(its trials vary other settings\): restore"):
        read_sweep(tmp_path)


def test_a_library_error_that_quotes_half_a_file_is_shortened(tmp_path: Path) -> None:
    np.savez(tmp_path / "gallery.npz", real=np.full(9000, 7, np.uint8))
    content = bytearray((tmp_path / "gallery.npz").read_bytes())
    content[26:28] = (5000).to_bytes(2, "little")  # how long the first member's name is
    (tmp_path / "gallery.npz").write_bytes(content)
    with pytest.raises(
        UserError, match=r"gallery\.npz is damaged \(File name in directory .* …\): do so"
    ) as raised:
        reading.read_arrays(tmp_path / "gallery.npz", "do so")
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("arrays_of", "message"),
    [
        ({"labels": np.zeros(2, np.int64)}, "does not hold a prediction of every image"),
        (
            {"probabilities": np.zeros((3, 2)), "labels": np.zeros(2, np.int64)},
            "does not hold a prediction of every image",
        ),
        ({"probabilities": np.zeros((2, 2)), "labels": np.array([0, 2])}, "a label is not a class's"),
    ],
)
def test_predictions_that_do_not_match_their_labels_are_refused(
    arrays_of: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "test.npz", **arrays_of)
    with pytest.raises(UserError, match=rf"test\.npz is damaged \(.*{message}\): delete .*, then resume"):
        read_predictions(tmp_path)


def test_a_member_of_an_npz_with_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays())
    whole = bytearray((tmp_path / "set.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        at = archive.start_dir
    whole[at + 10] = 77  # the method of the first member
    (tmp_path / "set.npz").write_bytes(whole)
    with pytest.raises(
        UserError, match=r"set\.npz: train_images is truncated or altered \(.*\): download or write"
    ):
        open_npz(tmp_path / "set.npz").splits["train"].open_images()


def test_a_classifier_that_would_not_fit_into_memory_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = READERS["model"](tmp_path)
    monkeypatch.setattr(reading, "available_memory_bytes", lambda: 1e5)
    with pytest.raises(
        UserError, match=r"model\.safetensors: a classifier as its header says takes .* GB of memory"
    ):
        reader.read()


def test_a_classifier_whose_header_contradicts_itself_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    reader, path = READERS["model"](tmp_path), tmp_path / "model.safetensors"
    head = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    meta, tensors = json.loads(head["__metadata__"]["rlcas"]), load_file(path)
    for changes, message in (
        ({"mean": [0.5, 0.5]}, "was not written by this version of rlcas: train it again"),
        ({"train_counts": [3]}, "was not written by this version of rlcas: train it again"),
        ({"image_shape": [1, 0, 8]}, "was not written by this version of rlcas: train it again"),
        (
            {"classifier": {**meta["classifier"], "backbone": "resnet10t"}},
            r"does not hold the weights of 'resnet10t' \(",
        ),
        ({"classifier": {**meta["classifier"], "width": 2**31}}, "model.safetensors"),
    ):
        save_file(tensors, path, metadata={"rlcas": json.dumps({**meta, **changes})})
        with pytest.raises(UserError, match=message):
            reader.read()
