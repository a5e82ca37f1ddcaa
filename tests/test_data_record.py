"""A split is decided once: whatever has come to the source since, the images of its record are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import arrays, config, gray, write_image, write_npz
from PIL import Image

from rlcas.data import load, load_recorded_test, load_test, open_prepared, prepare, read_record, write_record
from rlcas.errors import UserError
from rlcas.types import ImageSet, TrainingData


def write_classes(root: Path, *, per_class: int = 20, prefix: str = "old", seed: int = 0) -> str:
    """Write images of noise in two class folders and return the name for `data`."""
    for class_id, name in enumerate(("benign", "malignant")):
        for i in range(per_class):
            write_image(root / name / f"{prefix}_{i:02d}.png", gray(seed + 1000 * class_id + i))
    return f"folder:{root}"


def kept(data: TrainingData, folder: Path) -> Path:
    """Write the record of the data to a file and return it."""
    assert data.record is not None
    write_record(data.record, folder / "split.json")
    return folder / "split.json"


def same(found: ImageSet, expected: ImageSet) -> bool:
    return np.array_equal(found.images_NCHW, expected.images_NCHW) and np.array_equal(
        found.labels_N, expected.labels_N
    )


def test_a_record_lists_every_image_once(tmp_path: Path) -> None:
    data = load(config(write_classes(tmp_path / "set"), imbalance_factor=2))
    record = read_record(kept(data, tmp_path))
    assert record.class_names == ("benign", "malignant") and record.window is None
    sizes = {name: len(part) for name, part in record.parts.items()}
    assert sizes == {"train": len(data.train), "val": 4, "test": 8, "unused": 28 - len(data.train)}
    names = [name for part in record.parts.values() for name in part.names]
    assert len(names) == len(set(names)) == 40 and "benign/old_00.png" in names
    assert record.parts["train"].labels_N.tolist() == data.train.labels_N.tolist()


def test_a_source_that_grew_keeps_its_splits(tmp_path: Path) -> None:
    settings = config(write_classes(tmp_path / "set"))
    before, (test, _) = load(settings), load_test(settings)
    record = read_record(kept(before, tmp_path))
    write_classes(tmp_path / "set", per_class=4, prefix="a_new", seed=50)
    found, notes = load_recorded_test(settings, record)
    assert same(found, test)
    assert notes == (
        f"{tmp_path / 'set'} has changed since the run began: 8 (benign/a_new_00.png, benign/a_new_01.png, "
        "benign/a_new_02.png, …) are new; the run keeps the images and classes that it began with; begin a new "
        "run to use the images as they are now",
    )
    again = load(settings, record=record)
    assert same(again.train, before.train) and same(again.val, before.val)
    assert again.record is record and notes[0] in again.notes
    # Without the record, the larger folder is cut anew.
    assert not same(load_test(settings)[0], test)


def test_images_are_found_by_their_pixels_where_names_have_changed(tmp_path: Path) -> None:
    settings = config(write_classes(tmp_path / "set"))
    before, (test, _) = load(settings), load_test(settings)
    record = read_record(kept(before, tmp_path))
    for path in sorted((tmp_path / "set").glob("*/*.png")):
        path.rename(path.with_name(f"renamed_{path.name}"))
    found, notes = load_recorded_test(settings, record)
    assert same(found, test) and len(notes) == 1
    # Only the images that are looked for are known to be renamed: the others are neither read nor compared.
    assert "32 (" in notes[0] and " are gone; 8 (" in notes[0] and " are renamed" in notes[0]


def test_the_order_of_arrays_is_without_effect(tmp_path: Path) -> None:
    settings = config(write_npz(tmp_path))
    before, (test, _) = load(settings), load_test(settings)
    record = read_record(kept(before, tmp_path))
    turned = {key: array[::-1] for key, array in arrays().items()}
    write_npz(tmp_path, **turned)
    found, notes = load_recorded_test(settings, record)
    assert same(found, test) and notes == ()
    again = load(settings, record=record)
    assert same(again.train, before.train) and same(again.val, before.val)


def test_the_order_of_a_tables_rows_is_without_effect(tmp_path: Path) -> None:
    write_classes(tmp_path)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(tmp_path.glob("*/*.png"))]
    table, settings = tmp_path / "table.csv", config(f"csv:{tmp_path / 'table.csv'}")
    table.write_text("\n".join(["path,label", *rows]))
    before, (test, _) = load(settings), load_test(settings)
    record = read_record(kept(before, tmp_path))
    table.write_text("\n".join(["path,label", *rows[::-1]]))
    assert same(load_recorded_test(settings, record)[0], test)
    assert same(load(settings, record=record).train, before.train)
    anew = load(settings)
    assert same(anew.train, before.train) and same(anew.val, before.val)


def test_altered_and_missing_test_images_are_an_error_with_their_names(tmp_path: Path) -> None:
    settings = config(write_classes(tmp_path / "set"))
    record = read_record(kept(load(settings), tmp_path))
    altered, missing = record.parts["test"].names[:2]
    write_image(tmp_path / "set" / altered, gray(77777))
    (tmp_path / "set" / missing).unlink()
    with pytest.raises(
        UserError,
        match=rf"of its 8 test images 2 \({altered}, {missing}\) are missing or altered: restore them",
    ):
        load_recorded_test(settings, record)


def test_another_class_of_a_test_image_is_noted_and_its_recorded_class_kept(tmp_path: Path) -> None:
    settings = config(write_classes(tmp_path / "set"))
    before, (test, _) = load(settings), load_test(settings)
    record = read_record(kept(before, tmp_path))
    moved = next(name for name in record.parts["test"].names if name.startswith("benign"))
    target = tmp_path / "set/malignant" / f"moved_{Path(moved).name}"
    (tmp_path / "set" / moved).rename(target)
    found, notes = load_recorded_test(settings, record)
    assert same(found, test)
    assert len(notes) == 1
    assert f"1 ({moved}, now malignant/moved_" in notes[0] and " are renamed; 1 (" in notes[0]
    assert f"1 ({moved}: benign, now malignant) are of another class; the run keeps" in notes[0]


def test_a_new_class_does_not_renumber_the_others(tmp_path: Path) -> None:
    settings = config(write_classes(tmp_path / "set"))
    before, (test, _) = load(settings), load_test(settings)
    record = read_record(kept(before, tmp_path))
    write_image(tmp_path / "set/a_first/x.png", gray(4321))
    found, notes = load_recorded_test(settings, record)
    assert same(found, test) and len(notes) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts["parts"]["test"]["names"].pop(), "contradicts itself in part test"),
        (lambda facts: facts["parts"]["val"]["labels"].__setitem__(0, 2), "contradicts itself in part val"),
        (lambda facts: facts.pop("class_names"), "split.json is truncated or altered"),
    ],
)
def test_an_altered_record_is_an_error(tmp_path: Path, change, message: str) -> None:
    path = kept(load(config(write_classes(tmp_path / "set"))), tmp_path)
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=message):
        read_record(path)


def test_prepared_images_carry_no_record(tmp_path: Path) -> None:
    data = load(config(write_npz(tmp_path)))
    prepare(data, tmp_path / "prepared")
    assert data.record is not None and open_prepared(tmp_path / "prepared").record is None


def test_identical_pictures_stay_in_one_split(tmp_path: Path) -> None:
    root = tmp_path / "set"
    name = write_classes(root)
    for i in range(10):
        Image.open(root / f"benign/old_{i:02d}.png").save(root / f"benign/twin_{i:02d}.png")
    Image.open(root / "benign/old_00.png").save(root / "malignant/twin.png")
    for seed in range(5):
        data = load(config(name, seed=seed))
        assert data.record is not None
        parts = {part: set(record.digests) for part, record in data.record.parts.items()}
        assert not (
            parts["train"] & parts["val"] or parts["train"] & parts["test"] or parts["val"] & parts["test"]
        )
    assert data.notes[1] == (
        "identical pictures, kept in one split: 11 (benign/old_00.png = benign/twin_00.png, benign/old_01.png = "
        "benign/twin_01.png, benign/old_02.png = benign/twin_02.png, …); of them with conflicting labels: 1 "
        "(benign/old_00.png = malignant/twin.png)"
    )


def test_patients_who_share_a_picture_stay_in_one_split(tmp_path: Path) -> None:
    # Patients 0-1, 1-2, … each share a picture, so that all of the first ten are one group.
    rows = ["path,label,patient_id"]
    for patient in range(30):
        for i in range(2):
            seed = patient + i if patient < 10 else 1000 + 2 * patient + i
            write_image(tmp_path / f"{patient}_{i}.png", gray(seed))
            rows.append(f"{patient}_{i}.png,{patient % 2},{patient}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    data = load(config(f"csv:{tmp_path / 'table.csv'}"))
    assert data.record is not None
    holders = {
        part
        for part, record in data.record.parts.items()
        for name in record.names
        if int(name.split("_")[0]) < 10
    }
    assert len(holders) == 1
