"""The order of classes, nearly equal names, classes that settings merge or drop, and images that belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import arrays, config, gray, write_image, write_npz
from hypothesis import given
from hypothesis import strategies as st

from rlcas.data import load, load_test
from rlcas.data.classes import in_order
from rlcas.errors import UserError
from rlcas.types import TrainingData


def folder(root: Path, *names: str, count: int = 6) -> str:
    for c, name in enumerate(names):
        for i in range(count):
            write_image(root / name / f"{i}.png", gray(100 * c + i))
    return f"folder:{root}"


@pytest.mark.parametrize(
    "ordered",
    [
        tuple(map(str, range(12))),
        ("2.0", "10.0"),
        ("-1", "0", "01", "1", "1.5", "+2"),
        ("10", "2", "a"),
        ("a 10", "a 2"),
        ("1e1", "2"),
        ("0", "9", "٣٠"),
        (),
    ],
)
def test_numbers_are_in_the_order_of_numbers_and_names_in_that_of_letters(ordered: tuple[str, ...]) -> None:
    assert in_order(reversed(ordered)) == in_order(ordered) == ordered


@given(st.sets(st.integers(-(10**6), 10**6) | st.decimals(allow_nan=False, allow_infinity=False, places=2)))
def test_any_numbers_are_in_their_order(numbers: set[Any]) -> None:
    names = [f"{number:f}" if not isinstance(number, int) else str(number) for number in numbers]
    values = [float(name) for name in in_order(names)]
    assert values == sorted(values)


def test_folder_table_and_npz_have_one_order_of_classes(tmp_path: Path) -> None:
    names = [str(number) for number in range(12)]
    data = load(config(folder(tmp_path / "set", *names)))
    lines = [f"set/{name}/{i}.png,{name}" for name in names for i in range(6)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    assert data.class_names == load(config(f"csv:{tmp_path / 't.csv'}")).class_names == tuple(names)
    where = {gray(100 * c + i).tobytes(): c for c in range(12) for i in range(6)}
    assert [where[image.tobytes()] for image in data.train.images_NCHW] == data.train.labels_N.tolist()


@pytest.mark.parametrize(
    "twins", [("Benign", "benign"), ("1", "1.0"), ("01", "1"), ("in situ", "in  situ"), ("a ", "a")]
)
def test_nearly_equal_names_are_two_classes_with_a_note(tmp_path: Path, twins: tuple[str, str]) -> None:
    first, second = sorted(twins)
    data = load(config(folder(tmp_path / "set", *twins, "other")))
    assert data.num_classes == 3
    shown = f"{first!r} and {second!r}"
    assert [note for note in data.notes if shown in note and "--dataset.merge NEW=A+B" in note]
    data = load(config(f"folder:{tmp_path / 'set'}", merge={second: [first, second]}))
    assert data.num_classes == 2 and not any("differ only" in note for note in data.notes)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    name = write_npz(tmp_path, class_names=np.array(["a", "a"]))
    with pytest.raises(UserError, match=r"set.npz has 2 classes of the name 'a': give each its own"):
        load(config(name))


def in_npz(root: Path, **changes: Any) -> str:
    return write_npz(root, **arrays(num_classes=4), **changes)


@pytest.mark.parametrize("named", [True, False])
def test_classes_of_an_npz_file_are_merged_and_dropped(tmp_path: Path, named: bool) -> None:
    names = ["d", "a", "c", "b"] if named else ["0", "1", "2", "3"]
    name = in_npz(tmp_path, **({"class_names": np.array(names)} if named else {}))
    changes = {"merge": f"new={names[0]}+{names[3]}", "drop": (names[1],)}
    data, (test, found) = load(config(name, **changes)), load_test(config(name, **changes))
    # The order of an npz file's names is its own: the merged class is where its first member was. Numbers are sorted.
    ordered = ("new", "c") if named else ("2", "new")
    assert data.class_names == found == ordered
    new, other = ordered.index("new"), 1 - ordered.index("new")
    counts = [part.class_counts(2).tolist() for part in (data.train, data.val, test)]
    assert [count[new] for count in counts] == [6, 2, 3] and [count[other] for count in counts] == [3, 1, 1]
    assert f"class new is {names[0]} (6) + {names[3]} (5)" in data.notes
    assert f"classes left out: {names[1]} (6 images)" in data.notes
    whole = load(config(name))
    kept = whole.train.images_NCHW[whole.train.labels_N != 1]
    np.testing.assert_array_equal(data.train.images_NCHW, kept)


def test_classes_of_folders_stay_sorted_and_patients_with_their_images(tmp_path: Path) -> None:
    lines = [f"set/{c}/{i}.png,{c},{c}{i // 2}" for c in "abcd" for i in range(12)]
    folder(tmp_path / "set", *"abcd", count=12)
    (tmp_path / "t.csv").write_text("path,label,patient_id\n" + "\n".join(lines) + "\n")
    data = load(config(f"csv:{tmp_path / 't.csv'}", merge={"z": "a+b"}, drop=["c"]))
    assert data.class_names == ("d", "z")
    assert data.train.patients_N is not None
    first = [str(patient)[0] for patient in data.train.patients_N]
    assert [{"d": 0, "a": 1, "b": 1}[letter] for letter in first] == data.train.labels_N.tolist()
    data = load(config(f"csv:{tmp_path / 't.csv'}", merge={"a": "b+c"}))
    assert data.class_names == ("a", "d") and "class a is a (12) + b (12) + c (12)" in data.notes


def test_a_name_with_a_plus_is_a_class_or_in_a_list(tmp_path: Path) -> None:
    name = folder(tmp_path, "ER+", "HER2+", "luminal", "x")
    assert load(config(name, merge={"one": "ER+"})).class_names == ("HER2+", "luminal", "one", "x")
    assert load(config(name, merge={"one": ["ER+", "HER2+"]})).class_names == ("luminal", "one", "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge": {"n": "a+x"}}, r"merge names 'x', which is no class of .* \(a, b, c\): .*--dataset.merge none"),
        ({"drop": ("x",)}, r"dataset.drop names 'x', which is no class of .*or name none \(--dataset.drop=\)"),
        ({"merge": {"n": "a+b"}, "drop": ("b",)}, "dataset.merge and dataset.drop name class 'b' twice: keep one"),
        ({"merge": {"n": "a+b", "m": "b+c"}}, "name class 'b' twice"),
        ({"drop": ("a", "b")}, "has only one class, 'c'"),
        ({"merge": {"n": "a+b+c"}}, "has only one class, 'n'"),
        ({"drop": ("a", "b", "c")}, "has no images to cut into train, val, test"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_merged_or_dropped_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(config(folder(tmp_path, "a", "b", "c"), **changes))


def test_a_class_that_a_cut_cannot_divide_is_named_beforehand(tmp_path: Path) -> None:
    name = folder(tmp_path, "a", "b")
    write_image(tmp_path / "rare" / "0.png", gray(1000))
    data = load(config(name))
    shown = "classes with fewer than 3 images, which cannot be in each of train, val and test: 1 (rare (1));"
    assert any(note.startswith(shown) for note in data.notes)


def paired(root: Path, *names: str, num_classes: int = 2) -> TrainingData:
    for i, name in enumerate(names):
        write_image(root / f"c{i % num_classes}" / name, gray(i))
    return load(config(f"folder:{root}"))


PAIRS = {
    "eyes": [f"{patient}_{eye}.png" for patient in range(10, 30) for eye in ("left", "right")],
    "sides": [f"bus_{case:04d}-{side}.png" for case in range(20) for side in "lr"],
    "letters": [f"{patient * 4}_{i:03d}.png" for patient in "ABCDEFGH" for i in range(5)],
    "end": [f"{patient}{eye}.png" for patient in range(10, 30) for eye in "LR"],
    "frames": [f"study7_p{patient}_f{i}.png" for patient in range(10) for i in range(4)],
    "before": [f"{side}_{patient}.png" for patient in range(20) for side in ("left", "right")],
    "letters before": [f"{side}{patient}.png" for patient in range(20) for side in "LR"],
    "films": [f"film{patient}_{i}.png" for patient in range(5) for i in range(60)],
}
ALONE = {
    "numbers": [f"{i:05d}.png" for i in range(40)],
    "one start": [f"ISIC_{i:07d}.png" for i in range(40)],
    "brackets": [f"benign ({i}).png" for i in range(40)],
    "one side": [f"left_{i}.png" for i in range(40)],
    "letters": [f"{'lr'[i % 2]}ow_{i}.png" for i in range(40)],
    "hashes": [f"{i * 7919 % 65521:04x}{i:02x}.png" for i in range(40)],
}


@pytest.mark.parametrize("kind", PAIRS)
def test_file_names_that_pair_are_reported_with_a_pattern_that_works(tmp_path: Path, kind: str) -> None:
    data = paired(tmp_path, *PAIRS[kind])
    (note,) = [note for note in data.notes if note.startswith("file names pair, ")]
    # Before the note on the cut.
    assert data.notes.index(note) < [note.startswith("cut from") for note in data.notes].index(True)
    pattern = note.partition("--dataset.patient_pattern '")[2].partition("' keeps them in one split")[0]
    name = f"folder:{tmp_path}"
    grouped, (test, _) = (
        load(config(name, patient_pattern=pattern)),
        load_test(config(name, patient_pattern=pattern)),
    )
    parts = [
        set(part.patients_N.tolist())
        for part in (grouped.train, grouped.val, test)
        if part.patients_N is not None
    ]
    assert len(set().union(*parts)) == sum(map(len, parts)) < len(PAIRS[kind])
    assert not any("file names pair" in note for note in grouped.notes)


@pytest.mark.parametrize("kind", ALONE)
def test_file_names_that_do_not_pair_are_no_note(tmp_path: Path, kind: str) -> None:
    assert not any("file names pair" in note for note in paired(tmp_path, *ALONE[kind]).notes)


def test_names_that_begin_with_the_class_are_no_note(tmp_path: Path) -> None:
    for c in range(12):
        for i in range(6):
            write_image(tmp_path / f"n{c:04d}" / f"n{c:04d}_{i}.JPEG", gray(10 * c + i))
    assert not any("file names pair" in note for note in load(config(f"folder:{tmp_path}")).notes)


def test_equal_names_in_several_folders_are_no_note(tmp_path: Path) -> None:
    """As BUSI arranged in splits, each class and split counted from 1."""
    for s, split in enumerate(("train", "val", "test")):
        for c, name in enumerate(("benign", "malignant", "normal")):
            for i in range(20):
                write_image(tmp_path / split / name / f"{name} ({i}).png", gray(100 * (3 * s + c) + i))
    assert load(config(f"folder:{tmp_path}")).notes == ()


FOLDERS = {
    "CheXpert": (
        [
            f"train/patient{i:05d}/study{j}/view{k}_frontal.png"
            for i in range(12)
            for j in (1, 2)
            for k in (1, 2)
        ],
        ["(patient[0-9]+)", "/(patient[0-9]+)/study"],
    ),
    "flat": ([f"pat{i}/{k}.png" for i in range(12) for k in range(4)], ["pat([0-9]+)/"]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_patients_in_a_table_are_reported_and_found_by_a_pattern(tmp_path: Path, kind: str) -> None:
    names, patterns = FOLDERS[kind]
    for i, name in enumerate(names):
        write_image(tmp_path / name, gray(i))
    lines = [f"{name},{'ab'[i // 4 % 2]}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    table = f"csv:{tmp_path / 't.csv'}"
    (note,) = [
        note for note in load(config(table)).notes if note.startswith("folders may be of patients, 12 for 48")
    ]
    shown = note.partition("--dataset.patient_pattern '")[2].partition("' keeps them in one split")[0]
    for pattern in (shown, *patterns):
        data, (test, _) = (
            load(config(table, patient_pattern=pattern)),
            load_test(config(table, patient_pattern=pattern)),
        )
        parts = [
            set(part.patients_N.tolist())
            for part in (data.train, data.val, test)
            if part.patients_N is not None
        ]
        assert len(set().union(*parts)) == sum(map(len, parts)) == 12


def test_a_pattern_of_file_names_does_not_look_at_folders(tmp_path: Path) -> None:
    for i in range(12):
        write_image(tmp_path / "ab_x"[i % 2 :][:2] / f"{f'p{i // 4}_' if i < 8 else 'x'}{i}.png", gray(i))
    notes = load(config(f"folder:{tmp_path}", patient_pattern="^(.+)_")).notes
    assert "images without a patient, each a patient of its own: 4" in notes


@pytest.mark.parametrize("form", ["part_{}", "images{:03d}", "set{}", "{:c}"])
def test_folders_of_parts_are_not_reported_as_patients(tmp_path: Path, form: str) -> None:
    for i in range(48):
        number = i // 4 + (97 if "c" in form else 0)
        write_image(tmp_path / form.format(number) / f"{i}.png", gray(i))
    lines = [f"{form.format(i // 4 + (97 if 'c' in form else 0))}/{i}.png,{'ab'[i % 2]}" for i in range(48)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    assert not any("of patients" in note for note in load(config(f"csv:{tmp_path / 't.csv'}")).notes)


def test_pairs_of_a_set_with_splits_of_its_own_are_said_to_be_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for i in range(20):
            write_image(tmp_path / split / "ab"[i % 2] / f"{i % 10}_{split}{i}.png", gray(i + 100 * len(split)))
    notes = load(config(f"folder:{tmp_path}")).notes
    assert any("names those that are in two splits" in note for note in notes)
    notes = load(config(f"folder:{tmp_path}", patient_pattern="^([0-9]+)_")).notes
    assert any(note.startswith("patients in both train and val, a leak: 10 (0, 1, 2, …)") for note in notes)


def test_a_pattern_that_matches_some_names_leaves_the_rest_alone(tmp_path: Path) -> None:
    for i in range(12):
        write_image(tmp_path / "ab"[i % 2] / f"{f'p{i // 4}_' if i < 8 else 'x'}{i}.png", gray(i))
    data = load(config(f"folder:{tmp_path}", patient_pattern="^(p[0-9]+)_"))
    assert "images without a patient, each a patient of its own: 4" in data.notes
    with pytest.raises(
        UserError, match=r"patient_pattern \^\(q\) matches no file name and no path, such as a/p0_0: correct"
    ):
        load(config(f"folder:{tmp_path}", patient_pattern="^(q)"))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("study", [f"S{i // 3:03d}" for i in range(60)]),
        ("exam_id", [str(i // 2 * 37 % 101) for i in range(60)]),
        ("owner", [str(i // 4) for i in range(60)]),
    ],
)
def test_a_column_that_repeats_like_ids_is_reported(tmp_path: Path, column: str, values: list[str]) -> None:
    lines = []
    for i, value in enumerate(values):
        write_image(tmp_path / "x" / f"{i:03d}.png", gray(i))
        lines.append(f"x/{i:03d}.png,{'ab'[i // 4 % 2]},{value},{20 + i % 7},{100 + i % 40}.5,{'mf'[i % 2]}")
    (tmp_path / "t.csv").write_text(f"path,label,{column},age,size,sex\n" + "\n".join(lines) + "\n")
    notes = load(config(f"csv:{tmp_path / 't.csv'}")).notes
    shown = [note for note in notes if "repeats like ids" in note]
    assert len(shown) == 1 and shown[0].startswith(
        f"column {column} repeats like ids, {len(set(values))} for 60 images"
    )
    assert f"--dataset.columns patient={column} keeps them in one split" in shown[0]
    grouped = load(config(f"csv:{tmp_path / 't.csv'}", columns={"patient": column}))
    assert not any("repeats like ids" in note for note in grouped.notes)
