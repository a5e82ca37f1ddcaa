"""Every reader of a file, each with a folder in which all is whole but the file to be broken."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml
from broken_files import (
    Files,
    csv_files,
    damaged,
    json_files,
    json_lines,
    npy_files,
    npz_files,
    png_files,
    safetensors_files,
    yaml_files,
)
from data_files import arrays, config, dicom, gray, write_npz
from fake_comparison import write_fake_comparison
from fake_run import write_run
from fuzzing import Reader
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit, RLELossless
from test_checkpoint import BEST, INCUMBENT, Algorithm

from cluster.episodes.checkpoint import DIGESTS, STATE, load_into, save
from rlcas import settings
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.comparison.folder import cell_folder, read_comparison
from rlcas.config import ClassifierConfig, MethodConfig, RunConfig
from rlcas.data import (
    load,
    load_recorded_test,
    load_test,
    open_prepared,
    prepare,
    read_record,
    write_record,
)
from rlcas.errors import UserError
from rlcas.reports.facts import read_run
from rlcas.runs.replay import schedule
from rlcas.runs.sweep_folder import Sweep, Trial, read_sweep
from rlcas.storage.atomic import read_facts, sha256_of, write_json
from rlcas.training.saved_classifier import load_classifier, save_classifier, untrained
from synth.pidinet import VARIANTS, PiDiNet, load_pidinet
from synth.pool import PoolWriter, SyntheticPool, mark_copies, mark_filtered
from synth.training.checkpoint import load_checkpoint, save_checkpoint
from synth.training.ema import Ema


def npz(folder: Path) -> Reader:
    name = write_npz(folder)

    def read() -> None:
        load(config(name, size_px=8, channels=1))
        load_test(config(name, size_px=8, channels=1))

    return Reader(file="set.npz", contents=npz_files(arrays()), read=read)


def csv(folder: Path) -> Reader:
    for name in ("a/0.png", "b/1.png", "c/2.png", "d/3.png"):
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(gray(len(name))).save(folder / name)
    table = (
        b"path,label,patient_id,split\na/0.png,0,p,train\nb/1.png,1,q,train\nc/2.png,0,r,val\nd/3.png,1,s,val\n"
    )
    (folder / "set.csv").write_bytes(table)
    return Reader(
        file="set.csv", contents=csv_files(table), read=lambda: load(config(f"csv:{folder / 'set.csv'}"))
    )


def listed(folder: Path) -> Reader:
    """A list without header, beside those of the other splits and a second table, its images by a pattern."""
    whole = b"x0 0\nx1 1\nx2 0\nx3 1\n"
    for i in range(4):
        (folder / f"part_{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(gray(i)).save(folder / f"part_{i % 2}" / f"x{i}.png")
    for split in ("train", "val", "test"):
        (folder / f"set_{split}.txt").write_bytes(whole)
    (folder / "facts.csv").write_bytes(b"1,case\nx0,p\nx1,\nx2,q\n")
    stated = {"columns": "path=1,label=2", "images": "part_*/{path}.*", "join": "facts.csv"}
    read = config(f"csv:{folder / 'set_train.txt'}", **stated)
    return Reader(file="set_val.txt", contents=csv_files(whole), read=lambda: load(read))


def write_picture(path: Path) -> None:
    Image.fromarray(gray(2, (16, 16))).save(path)


def write_wide_tiff(path: Path) -> None:
    """Write a kind of TIFF that Pillow does not know."""
    tifffile.imwrite(path, np.stack([gray(i, dtype="int16") for i in range(3)], axis=2), photometric="rgb")


def image(
    suffix: str,
    contents: Callable[[bytes], Files] = damaged,
    write: Callable[[Path], object] = write_picture,
) -> Callable[[Path], Reader]:
    """Return the reader of a folder of images, one of which is of that kind and broken."""

    def reader(folder: Path) -> Reader:
        for split in ("train", "val"):
            for number, name in enumerate("ab"):
                (folder / split / name).mkdir(parents=True)
                Image.fromarray(gray(number)).save(folder / split / name / "0.png")
        broken = f"train/a/1{suffix}"
        write(folder / broken)
        whole = (folder / broken).read_bytes()
        name = f"folder:{folder}"
        return Reader(
            file=broken, contents=contents(whole), read=lambda: load(config(name, size_px=8, channels=1))
        )

    return reader


LUTS = [Dataset()]
LUTS[0].LUTDescriptor, LUTS[0].LUTData = [4, 0, 12], b"\0\1" * 4
LUTS[0]["LUTDescriptor"].VR, LUTS[0]["LUTData"].VR = "US", "OW"

TAGS: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 7, 9, 65_535),
    "Columns": (0, 1, 7, 9, 65_535),
    "SamplesPerPixel": (0, 2, 3, 4, 65_535),
    "BitsAllocated": (0, 1, 8, 12, 16, 32, 64, 65_535),
    "BitsStored": (0, 1, 7, 12, 65_535),
    "PixelRepresentation": (0, 1, 2),
    "PlanarConfiguration": (0, 1, 7),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "x", ""),
    "NumberOfFrames": ("0", "1", "2", "-1", "2147483647"),
    "RescaleSlope": ("0", "-1", "1e300", "1e-300"),
    "RescaleIntercept": ("1e300", "-1e300"),
    "WindowCenter": ("0", "1e300", "", ["1", "2"]),
    "WindowWidth": ("0", "-1", "1e300", "", ["1", "2"]),
    "HighBit": (0, 7, 15),
    "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "x", ""),
    "PresentationLUTShape": ("INVERSE", "x", ""),
    "RedPaletteColorLookupTableDescriptor": ([0, 0, 8], [256, 0, 16], [9, 65_535, 0], [1, 0, 8]),
    "GreenPaletteColorLookupTableDescriptor": ([0, 0, 8], [256, 0, 16]),
    "BluePaletteColorLookupTableDescriptor": ([0, 0, 8], [256, 0, 16]),
    "RedPaletteColorLookupTableData": (b"", b"\0\0", bytes(256), bytes(512)),
    "GreenPaletteColorLookupTableData": (b"", bytes(256), bytes(512)),
    "BluePaletteColorLookupTableData": (b"", bytes(256), bytes(512)),
    "SegmentedRedPaletteColorLookupTableData": (b"", b"\0\1\0\2", bytes(256)),
    "VOILUTSequence": ([], [Dataset()], LUTS),
    "ModalityLUTSequence": ([], [Dataset()], LUTS),
    "PixelData": (b"", b"\0\0", bytes(500), b"\xfe\xff\x00\xe0" * 4),
}
SYNTAXES = (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit, RLELossless)


@st.composite
def dicom_files(draw: Callable[..., Any], whole: bytes) -> bytes:
    """Return a DICOM file with odd elements, in another transfer syntax than its header names, or damaged."""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged(whole))
    dataset = dcmread(io.BytesIO(whole))
    for tag in draw(st.lists(st.sampled_from(sorted(TAGS)), max_size=4)):
        if draw(st.integers(0, 4)) == 0:
            dataset.pop(tag, None)
        else:
            setattr(dataset, tag, draw(st.sampled_from(TAGS[tag])))
        if tag in dataset and tag.endswith("Descriptor"):
            dataset[tag].VR = "US"  # else pydicom may not know it, and then does not write the file
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    written = io.BytesIO()
    dataset.save_as(written)
    content = written.getvalue()
    if draw(st.integers(0, 3)) == 0:
        own, other = dataset.file_meta.TransferSyntaxUID, draw(st.sampled_from(SYNTAXES))
        content = content.replace(own.encode().ljust(20, b"\0"), other.encode()[:20].ljust(20, b"\0"), 1)
    return content


def settings_file(folder: Path) -> Reader:
    whole = {
        "data": "phantom", "seed": 1, "preset": "quick", "dataset": {"split": [0.7, 0.1, 0.2], "window": [0, 1]},
        "shots": {"many": [0], "few": [1]}, "sampler": {"k": 3, "initial_count": [1, 2], "reward": "cubic"},
        "classifier.loss": "ce", "sweep": {"over": {"sampler.k": "1,3"}}, "compare": {"pools": {"mgdm": "x"}},
    }  # fmt: skip
    file = folder / settings.CONFIG_FILE
    file.write_text(yaml.safe_dump(whole))

    def read() -> None:
        stated = settings.read_yaml(file)
        for resolve in (settings.of, settings.of_sweep, settings.of_comparison):
            with naming(file):
                resolve(stated)

    return Reader(file=settings.CONFIG_FILE, contents=yaml_files(whole), read=read)


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Let a fault of a setting, which names the setting, count as one that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _pool(folder: Path) -> dict[str, Any]:
    writer = PoolWriter(
        folder, class_names=("a", "b"), image_shape_CHW=(1, 4, 4), shard_images=3, source={"seed": 0}
    )
    for class_id, span in writer.missing([5, 2]):
        writer.write(class_id, span, np.zeros((len(span), 1, 4, 4), np.uint8))
    writer.commit([5, 2])
    return read_facts(folder / "manifest.json")


def _read_pool(folder: Path) -> None:
    pool = SyntheticPool(folder)
    for class_id, size in enumerate(pool.class_sizes_C):
        pool.images(class_id, np.arange(min(size, 9)))


def manifest(folder: Path) -> Reader:
    whole = _pool(folder)
    return Reader(file="manifest.json", contents=json_files(whole), read=lambda: _read_pool(folder))


def shard(folder: Path) -> Reader:
    whole, file = _pool(folder), "class-000/shard-000.npy"

    def sign() -> None:
        whole["shards"][0]["sha256"] = sha256_of(folder / file)
        write_json(folder / "manifest.json", whole)

    images = np.zeros((3, 1, 4, 4), np.uint8)
    return Reader(file=file, contents=npy_files(images), read=lambda: _read_pool(folder), beside=sign)


def copies(folder: Path) -> Reader:
    _pool(folder)
    mark_copies(folder, [np.array([1, 3]), np.array([0])], {"threshold": 0.5})
    whole = read_facts(folder / "copies.json")
    return Reader(file="copies.json", contents=json_files(whole), read=lambda: _read_pool(folder))


def filtered(folder: Path) -> Reader:
    _pool(folder)
    mark_filtered(folder, [np.array([1, 3]), np.array([0])], {"settings": {"confidence": [0.3, 0.9]}})
    whole = read_facts(folder / "filtered.json")
    return Reader(file="filtered.json", contents=json_files(whole), read=lambda: _read_pool(folder))


def _prepared(folder: Path) -> None:
    np.savez(folder / "set.npz", **arrays(), train_patients=np.arange(12))
    prepare(load(config(f"npz:{folder / 'set.npz'}")), folder)


def _read_prepared(folder: Path) -> None:
    data = open_prepared(folder)
    data.train.class_counts(data.num_classes)
    assert data.train.images_NCHW.sum() >= 0 and data.image_shape_CHW


def data_json(folder: Path) -> Reader:
    _prepared(folder)
    whole = read_facts(folder / "data.json")
    return Reader(file="data.json", contents=json_files(whole), read=lambda: _read_prepared(folder))


def split_record(folder: Path) -> Reader:
    record = load(config(write_npz(folder))).record
    assert record is not None
    write_record(record, folder / "split.json")

    def read() -> None:
        load_recorded_test(config(f"npz:{folder / 'set.npz'}"), read_record(folder / "split.json"))

    return Reader(file="split.json", contents=json_files(read_facts(folder / "split.json")), read=read)


def prepared_array(file: str) -> Callable[[Path], Reader]:
    """Return the reader of prepared images with one broken array."""

    def reader(folder: Path) -> Reader:
        _prepared(folder)
        contents = npy_files(np.load(folder / file, allow_pickle=False))
        return Reader(file=file, contents=contents, read=lambda: _read_prepared(folder))

    return reader


def checkpoint(file: str, contents: Callable[[bytes], Files]) -> Callable[[Path], Reader]:
    """Return the reader of a run's checkpoint with one broken file whose checksum is correct."""

    def reader(folder: Path) -> Reader:
        path = save(Algorithm(1), folder)  # type: ignore[arg-type]
        whole, digests = (path / file).read_bytes(), read_facts(path / DIGESTS)

        def sign() -> None:
            if file != DIGESTS:
                of = {name: sha256_of(path / name) for name in (file, BEST)}
                write_json(path / DIGESTS, {**digests, **of})

        return Reader(
            file=f"{path.name}/{file}",
            contents=contents(whole),
            read=lambda: load_into(Algorithm(2), folder),  # type: ignore[arg-type]
            beside=sign,
        )

    return reader


def synthesiser_checkpoint(folder: Path) -> Reader:
    def state() -> tuple[torch.nn.Module, Ema, torch.optim.Optimizer]:
        module = torch.nn.Linear(2, 2)
        return module, Ema(module, [0.9]), torch.optim.AdamW(module.parameters())

    path = folder / "part.safetensors"
    module, ema, optimizer = state()
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(path, module, ema, optimizer, steps_done=3, figures={"loss": 0.5})
    fresh = state()
    return Reader(
        file=path.name,
        contents=safetensors_files(path.read_bytes()),
        read=lambda: load_checkpoint(path, *fresh),
    )


def model(folder: Path) -> Reader:
    meta = ClassifierMeta(
        classifier=ClassifierConfig(backbone="test_resnet", width=None),
        method=MethodConfig(),
        class_names=("a", "b"),
        image_shape=(1, 8, 8),
        mean=(0.5,),
        std=(0.2,),
        train_counts=(3, 1),
    )
    save_classifier(folder, untrained(meta).state_dict(), meta)
    whole = (folder / "model.safetensors").read_bytes()
    return Reader(
        file="model.safetensors",
        contents=safetensors_files(whole),
        read=lambda: load_classifier(folder, torch.device("cpu")),
    )


def _shorten(file: Path, of: Callable[[dict[str, Any]], Any]) -> None:
    """Keep only settings that differ from the defaults: reading all of them would take most of the time."""
    stated = of(settings.read_yaml(file)).model_dump(mode="json", exclude_defaults=True)
    file.write_text(yaml.safe_dump(stated))


def _run(folder: Path) -> None:
    write_run(folder, num_classes=2, epochs=2)
    _shorten(folder / settings.CONFIG_FILE, settings.of)


def comparison(file: str, contents: Callable[[Path], Files]) -> Callable[[Path], Reader]:
    """Return the reader of a comparison with one broken file in a cell."""

    def reader(folder: Path) -> Reader:
        write_fake_comparison(folder, num_classes=2, seeds=1, rows=("ce",))
        _shorten(folder / settings.COMPARE_CONFIG_FILE, settings.of_comparison)
        path = cell_folder(folder, "ce", 0)

        def read() -> None:
            found = read_comparison(folder)
            for cell in found.cells:
                assert cell.passes >= 0 and cell.method
            assert found.labels_N.sum() >= 0

        return Reader(file=str((path / file).relative_to(folder)), contents=contents(path / file), read=read)

    return reader


def epochs(folder: Path) -> Reader:
    _run(folder)
    lines = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    replayed = RunConfig.model_validate({"sampler": {"replay": folder, "epochs": 2}}).sampler

    def read() -> None:
        run = read_run(folder)
        if run.epochs:
            assert run.moved() >= 0 and run.retries >= 0 and run.failures is not None
            run.winners("compositions")
        with contextlib.suppress(UserError):  # of a chain that does not follow: it names the run
            schedule(replayed, 2)

    return Reader(file="epochs.jsonl", contents=json_lines(lines), read=read)


def run_json(file: str) -> Callable[[Path], Reader]:
    """Return the reader of a run's folder with one broken JSON file."""

    def reader(folder: Path) -> Reader:
        _run(folder)
        if file == "timings.json":  # which a run has until it is finished
            (folder / "metrics.json").unlink()
            write_json(folder / file, {"synthesiser": 1.5, "pool": 2.0})
        whole = json.loads((folder / file).read_text())

        def read() -> None:
            run = read_run(folder)
            assert run.name and run.class_names is not None and run.missing is not None

        return Reader(file=file, contents=json_files(whole), read=read)

    return reader


def gallery(folder: Path) -> Reader:
    _run(folder)
    with np.load(folder / "gallery.npz", allow_pickle=False) as file:
        whole = {name: array[:, :2, :, :4, :4] for name, array in file.items()}
    return Reader(file="gallery.npz", contents=npz_files(whole), read=lambda: read_run(folder))


def sweep(folder: Path) -> Reader:
    trial = Trial(
        name="0001", settings={"sampler.k": 1}, pool="pools/0", num_epochs=2, status="finished", metric=0.5
    )
    Sweep(path=folder, name="x", metric="f1", search="grid", trials=[trial, replace(trial, name="0002")]).save()
    whole = read_facts(folder / "sweep.json")

    def read() -> None:
        table = read_sweep(folder)
        assert table.ranked() and table.keys is not None

    return Reader(file="sweep.json", contents=json_files(whole), read=read)


def pidinet(folder: Path) -> Reader:
    path = folder / "pidinet.pth"
    tensors = {f"module.{name}": tensor for name, tensor in PiDiNet(list(VARIANTS)[-1]).state_dict().items()}
    torch.save({"state_dict": tensors}, path)
    whole = path.read_bytes()
    return Reader(file=path.name, contents=damaged(whole), read=lambda: load_pidinet(path))


def _saved(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


READERS: dict[str, Callable[[Path], Reader]] = {
    "npz": npz,
    "csv": csv,
    "list": listed,
    "png": image(".png", png_files),
    "jpeg": image(".jpg"),
    "bmp": image(".bmp"),
    "tiff": image(".tif"),
    "wide tiff": image(".tif", write=write_wide_tiff),
    "dicom": image(".dcm", dicom_files, lambda path: dicom(path, gray(2))),
    "settings": settings_file,
    "pool_manifest": manifest,
    "pool_shard": shard,
    "pool_copies": copies,
    "pool_filtered": filtered,
    "split_record": split_record,
    "prepared_facts": data_json,
    "prepared_images": prepared_array("train_images.npy"),
    "prepared_labels": prepared_array("train_labels.npy"),
    "checkpoint_state": checkpoint(STATE, lambda whole: json_files(json.loads(whole))),
    "checkpoint_weights": checkpoint(INCUMBENT, safetensors_files),
    "checkpoint_digests": checkpoint(DIGESTS, lambda whole: json_files(json.loads(whole))),
    "checkpoint_synthesiser": synthesiser_checkpoint,
    "model": model,
    "cell": comparison("cell.json", lambda path: json_files(read_facts(path))),
    "cell_predictions": comparison("test.npz", lambda path: npz_files(_saved(path))),
    "epochs": epochs,
    "run_data": run_json("prepared/data.json"),
    "run_metrics": run_json("metrics.json"),
    "run_timings": run_json("timings.json"),
    "run_gallery": gallery,
    "sweep": sweep,
    "pidinet": pidinet,
}
"""Name -> what makes its folder whole and returns it."""
