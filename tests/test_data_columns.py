"""Tables with columns of any names: which are recognised, where their images are, and second tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import config, dicom, gray, write_image

from rlcas import settings
from rlcas.data import load, load_test
from rlcas.errors import UserError
from rlcas.types import TrainingData


def images(folder: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        write_image(folder / name, gray(i))


def table(path: Path, *lines: str, encoding: str = "utf-8") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return f"csv:{path}"


def ids(count: int = 30) -> list[str]:
    return [f"x{i:02d}" for i in range(count)]


def read(name: str, **dataset: Any) -> TrainingData:
    return load(config(name, **dataset))


def whole(name: str, **dataset: Any) -> list[tuple[bytes, str]]:
    """Return pixels and class of all images of all splits."""
    data, (test, _) = load(config(name, **dataset)), load_test(config(name, **dataset))
    return sorted(
        (image.tobytes(), data.class_names[label])
        for part in (data.train, data.val, test)
        for image, label in zip(part.images_NCHW, part.labels_N, strict=True)
    )


@pytest.mark.parametrize(
    "path", ["path", "image_id", "IMAGE", "id_code", "ID", "File Name", "image_path", "img"]
)
@pytest.mark.parametrize("label", ["label", "dx", "Diagnosis", "level", "Pathology", "class", "dr_grade"])
def test_common_names_are_recognised_and_printed(tmp_path: Path, path: str, label: str) -> None:
    images(tmp_path, [f"{name}.png" for name in ids()])
    name = table(
        tmp_path / "t.csv", f"{path},{label},age", *(f"{x}.png,{'ab'[i % 2]},{i}" for i, x in enumerate(ids()))
    )
    data = read(name)
    assert data.class_names == ("a", "b")
    found = [note for note in data.notes if note.startswith("columns: ")]
    noted = [f"columns: path={path},label={label} (recognised; --dataset.columns names others)"]
    assert found == ([] if (path, label) == ("path", "label") else noted)


@pytest.mark.parametrize(
    "patient", ["patient_id", "Patient", "lesion_id", "Case", "CaseID", "subject", "subject_id"]
)
def test_patients_of_any_common_name_stay_together(tmp_path: Path, patient: str) -> None:
    images(tmp_path, [f"{x}.png" for x in ids(60)])
    lines = [f"{x}.png,{'ab'[i // 3 % 2]},{i // 3}" for i, x in enumerate(ids(60))]
    data = read(table(tmp_path / "t.csv", f"path,label,{patient}", *lines))
    assert data.train.patients_N is not None and data.val.patients_N is not None
    assert not set(data.train.patients_N) & set(data.val.patients_N)
    assert any("by patients" in note for note in data.notes)


def test_the_widest_group_is_the_patient_and_a_yes_or_no_is_none(tmp_path: Path) -> None:
    images(tmp_path, [f"{x}.png" for x in ids()])
    lines = [
        f"{x}.png,{'ab'[i // 6 % 2]},{i // 2},P{i // 6},{'yes' if i % 2 else 'no'}" for i, x in enumerate(ids())
    ]
    data = read(table(tmp_path / "t.csv", "path,label,lesion_id,patient,case", *lines))
    assert data.train.patients_N is not None and set(data.train.patients_N) <= {f"P{i}" for i in range(5)}
    data = read(table(tmp_path / "t.csv", "path,label,a,b,case", *lines))
    assert data.train.patients_N is None


def test_columns_are_named_by_a_setting_in_any_case(tmp_path: Path) -> None:
    images(tmp_path, [f"{x}.png" for x in ids()])
    lines = [f"{x}.png,{'ab'[i // 3 % 2]},{'xy'[i % 2]},{i // 3}" for i, x in enumerate(ids())]
    name = table(tmp_path / "t.csv", "where,Histology,Pathology,owner", *lines)
    data = read(name, columns="path=where,label=pathology,patient=owner")
    assert data.class_names == ("x", "y") and data.train.patients_N is not None
    assert data.notes[0] == "columns: path=where,label=Pathology,patient=owner"
    with pytest.raises(
        UserError, match=r"line 1: dataset.columns label grade is no column of where, Histology"
    ):
        read(name, columns="path=where,label=grade")
    name = table(tmp_path / "t.csv", "where,Histology,Pathology,Pathology", *lines)
    with pytest.raises(
        UserError, match=r"label Pathology names 2 columns of where, Histology, Pathology, Pathology"
    ):
        read(name, columns="path=where,label=Pathology")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("columns", "path", "dataset.columns is 'path': 'path' has no =; write NAME=VALUE"),
        ("columns", "path=a,path=b", "'path' is given twice; keep one"),
        (
            "columns",
            "file=a",
            "dataset.columns is 'file': input should be 'path', 'label', 'patient' or 'split'",
        ),
        ("merge", "a=b,c", "dataset.merge is 'a=b,c': 'c' has no ="),
        ("patient_pattern", "(a", "dataset.patient_pattern is .*it is no regular expression"),
        ("patient_pattern", "a", "dataset.patient_pattern is 'a': it has 0 groups in parentheses; write one"),
        ("levels", "any", "dataset.levels is .*name class once and patient once at most"),
        ("levels", "class,patient,patient", "name class once and patient once at most"),
    ],
)
def test_a_faulty_setting_is_refused_with_its_name(key: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings.resolve(given={f"dataset.{key}": text})


@pytest.mark.parametrize(("key", "text"), [("columns", "patient=id"), ("levels", "class,patient")])
def test_the_patient_is_named_in_one_way(key: str, text: str) -> None:
    with pytest.raises(UserError, match=r"patient_pattern \^\(\.\) names the patient, and so does .*keep one"):
        settings.resolve(given={f"dataset.{key}": text, "dataset.patient_pattern": "^(.)"})
    settings.resolve(given={"dataset.columns": "patient=none", "dataset.patient_pattern": "^(.)"})


def test_a_setting_is_a_mapping_in_yaml_and_a_flag_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("dataset: {columns: {path: a, label: b}, merge: {x: [a, 'b+c']}, drop: ['d,e']}\n")
    dataset = settings.resolve(given={}, file=file).dataset
    assert dataset.columns == {"path": "a", "label": "b"} and dataset.merge == {"x": ("a", "b+c")}
    assert dataset.drop == ("d,e",)
    dataset = settings.resolve(given={"dataset.columns": "label=c", "dataset.merge": "none"}, file=file).dataset
    assert dataset.columns == {"label": "c"} and dataset.merge == {}


@pytest.mark.parametrize(
    "pattern",
    [
        "part_*/{image_id}.jpg", "part_*/{image_id}.*", "*/{path}.jpg", "part_*/{IMAGE_ID}.jpg",
        "part_?/{image_id}*", "part_[12]/{image_id}.jpg", "../set/part_*/{image_id}.jpg", "{folder}/{image_id}.jpg",
        "{folder}/*{number}.jpg",
    ],
)  # fmt: skip
def test_a_pattern_finds_images_in_several_folders(tmp_path: Path, pattern: str) -> None:
    root = tmp_path / "set"
    images(root, [f"part_{1 + i % 2}/{x}.jpg" for i, x in enumerate(ids())])
    lines = [f"{x},{'ab'[i % 2]},part_{1 + i % 2},{x[1:]}" for i, x in enumerate(ids())]
    name = table(root / "t.csv", "image_id,dx,folder,number", *lines)
    assert len({pixels for pixels, _ in whole(name, images=pattern)}) == 30
    assert len({pixels for pixels, _ in whole(name, images=f"{root.parent}/set/part_*/{{image_id}}.jpg")}) == 30


def test_a_folder_with_pattern_characters_in_its_name_and_in_cells_is_itself(tmp_path: Path) -> None:
    root = tmp_path / "set [1]*"
    images(root, [f"pictures/{x} [a]*.png" for x in ids()])
    name = table(root / "t.csv", "ID,label", *(f"{x} [a]*,{'ab'[i % 2]}" for i, x in enumerate(ids())))
    for pattern in ("pictures/{ID}.png", "pictures/{ID}.*", "p*/{ID}.png"):
        assert len(whole(name, images=pattern)) == 30


def test_a_pattern_is_a_root_without_columns(tmp_path: Path) -> None:
    images(tmp_path / "full set", [f"train/{x}.png" for x in ids()])
    name = table(
        tmp_path / "lists" / "t.csv",
        "path,label",
        *(f"train/{x}.png,{'ab'[i % 2]}" for i, x in enumerate(ids())),
    )
    for folder in ("../full set", "../full set/", str(tmp_path / "full set"), "../full*"):
        assert len(whole(name, images=folder)) == 30


def test_a_pattern_that_does_not_fit_is_an_error_that_names_it(tmp_path: Path) -> None:
    images(tmp_path, [f"{folder}/{x}.png" for folder in ("a", "b") for x in ids(3)])
    name = table(tmp_path / "t.csv", "ID,label,n", "x00,a,1", "x02,b,", "x09,b,1")
    for pattern, message in (
        (
            "a/{ID}.png",
            r"line 4: no image file .*/a/x09.png \(dataset.images a/\{ID\}.png\): correct the pattern",
        ),
        ("a/{ID}.*", r"line 4: no image file .*/a/x09\.\* \(dataset.images"),
        ("*/{ID}.png", r"line 2: 2 files match .*a/x00.png, .*b/x00.png: narrow the pattern"),
        ("a/x0{n}*", r"line 3: n is empty: fill it in"),
        (
            "c/{ID}.png",
            r"dataset.images c/\{ID\}.png: there is no folder .*/c: correct it \(it is relative to the",
        ),
        ("a/{id2}.png", r"line 1: dataset.images column id2 is no column of ID, label, n"),
    ):
        with pytest.raises(UserError, match=message):
            read(name, images=pattern, unlabelled="leave_out")


def test_a_pattern_passes_over_masks_beside_the_picture(tmp_path: Path) -> None:
    images(tmp_path, [f"all/{x}{end}.png" for x in ids() for end in ("", "_tumor", "_other1")])
    name = table(tmp_path / "t.csv", "ID,label", *(f"{x},{'ab'[i % 2]}" for i, x in enumerate(ids())))
    pictures = {gray(3 * i).tobytes() for i in range(30)}
    assert {pixels for pixels, _ in whole(name, images="all/{ID}*.png")} == pictures


def test_a_pattern_of_names_is_the_patient_before_a_column_that_is_recognised(tmp_path: Path) -> None:
    images(tmp_path, [f"{x[:2]}_{x}.png" for x in ids()])
    lines = [f"{x[:2]}_{x}.png,{'ab'[i % 2]},{i}" for i, x in enumerate(ids())]
    name = table(tmp_path / "t.csv", "path,label,case", *lines)
    data = read(name, patient_pattern="^(x[0-9])_", split=(1, 1, 1))
    assert data.train.patients_N is not None and set(data.train.patients_N) < {"x0", "x1", "x2"}
    assert not any(note.startswith("columns:") for note in data.notes)


def test_a_pattern_from_the_working_folder_is_shown_from_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "set", [f"part_{i % 2}/{x}.jpg" for i, x in enumerate(ids())])
    table(tmp_path / "set" / "t.csv", "ID,label", *(f"{x},{'ab'[i % 2]}" for i, x in enumerate(ids())))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"there is no folder set/set/part_\*: write part_\* for set/part_\* \(it is rel"
    ):
        read("csv:set/t.csv", images="set/part_*/{ID}.jpg")
    assert len(whole("csv:set/t.csv", images="part_*/{ID}.jpg")) == 30


def test_images_that_lie_elsewhere_are_shown(tmp_path: Path) -> None:
    images(tmp_path, [f"deep/part_{i % 3}/{x}.JPG" for i, x in enumerate(ids())])
    name = table(tmp_path / "t.csv", "id_code,level", *(f"{x},{i % 2}" for i, x in enumerate(ids())))
    with pytest.raises(
        UserError, match=r"line 2: no image .*lie elsewhere, add --dataset.images '(.*)'$"
    ) as caught:
        read(name)
    pattern = str(caught.value).rpartition("images ")[2].strip("'")
    assert pattern == "deep/part_*/{id_code}.JPG" and len(whole(name, images=pattern)) == 30
    name = table(tmp_path / "t.csv", "id_code,level", "nowhere,1")
    with pytest.raises(UserError, match=r"no image file .*nowhere: correct the path .* with --dataset.images$"):
        read(name)


def test_paths_of_windows_are_read(tmp_path: Path) -> None:
    root = tmp_path / "set"
    images(root, [f"deep/in/{x}.png" for x in ids()])
    name = table(
        root / "t.csv", "path,label", *(f"deep\\in\\{x}.png,{'ab'[i % 2]}" for i, x in enumerate(ids()))
    )
    assert (
        len(whole(name)) == len(whole(name, images="{path}")) == len(whole(name, images="../*/{path}*")) == 30
    )
    with pytest.raises(UserError, match=r"no image file .*/in.x00.png"):
        read(table(root / "u.csv", "path,label", "in\\x00.png,a"))
    # On other systems a backslash may be a letter of a name.
    (root / "deep" / "in" / "x00.png").rename(root / "deep\\in\\x00.png")
    assert len(whole(name)) == 30


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_quotes_and_a_byte_order_mark_are_read(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    images(tmp_path, [f"{x}.png" for x in ids()])
    lines = [separator.join([f'"{x}.png"', f'"0{separator}5"', f'"a {i % 2}"']) for i, x in enumerate(ids())]
    name = table(tmp_path / "t.csv", separator.join(["Image", "size", "Label"]), *lines, encoding=encoding)
    assert read(name).class_names == ("a 0", "a 1")
    name = table(tmp_path / "t.csv", f"sep={separator}", separator.join(["Image", "size", "Label"]), *lines)
    assert read(name).class_names == ("a 0", "a 1")


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", "])
def test_a_list_without_a_header_is_recognised(tmp_path: Path, separator: str) -> None:
    images(tmp_path, [f"a b/{x}.JPEG" for x in ids()])
    name = table(
        tmp_path / "list.txt", *(f"a b/{x}.JPEG{separator}{10 - i % 3}" for i, x in enumerate(ids())), ""
    )
    data = read(name)
    assert data.class_names == ("8", "9", "10") and len(whole(name)) == 30
    assert data.notes[0] == "columns: path=1,label=2 (recognised; --dataset.columns names others)"


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".GIF", "", ".IMA"])
def test_images_that_only_a_table_may_name_are_found(tmp_path: Path, suffix: str) -> None:
    for i, x in enumerate(ids()):
        path = tmp_path / "all" / f"{x}{suffix}"
        if suffix.lower() in (".webp", ".gif"):
            write_image(path, gray(i))
        else:
            dicom(path, gray(i))
        path.with_name(f"{x}.txt").write_text("a report")
    name = table(tmp_path / "t.csv", "id,label", *(f"{x},{'ab'[i % 2]}" for i, x in enumerate(ids())))
    for pattern in ("all/{id}.*", "all/{id}*") if suffix else ("all/{id}*", "a*/{id}"):
        assert len(whole(name, images=pattern)) == 30
    name = table(tmp_path / "list.txt", *(f"all/{x}{suffix} {'ab'[i % 2]}" for i, x in enumerate(ids())))
    assert len(whole(name)) == 30


def test_columns_of_a_list_are_named_by_number(tmp_path: Path) -> None:
    images(tmp_path, [f"all/{x}.png" for x in ids()])
    name = table(tmp_path / "list.csv", *(f"{i},{x},{'ab'[i % 2]}" for i, x in enumerate(ids())))
    with pytest.raises(
        UserError, match=r"no column path among 0, x00, a: .*if this line is an image.*path=1,label=2"
    ):
        read(name)
    assert len(whole(name, columns="path=2,label=3", images="all/{path}.png")) == 30
    assert len(whole(name, columns="path=2,label=3", images="all/{2}.png")) == 30
    name = table(tmp_path / "list.csv", *(f"{i},all/{x}.png,{'ab'[i % 2]}" for i, x in enumerate(ids())))
    with pytest.raises(UserError, match=r"line 1: no column label among 1, 2, 3"):
        read(name)
    assert len(whole(name, columns="label=3")) == 30
    name = table(tmp_path / "list.csv", *(f"all/{x}.png,all/{x}.png,{i % 2}" for i, x in enumerate(ids())))
    with pytest.raises(UserError, match=r"several columns may be the path: choose --dataset.columns path=1 or"):
        read(name)


def lists(root: Path, names: Sequence[str], head: Sequence[str] = ()) -> None:
    images(root, [f"{x}.png" for x in ids(12 * len(names))])
    for k, name in enumerate(names):
        table(root / name, *head, *(f"x{12 * k + i:02d}.png,{i % 2}" for i in range(12)))


@pytest.mark.parametrize(
    "names",
    [
        ("LT_train.txt", "LT_val.txt", "LT_test.txt"),
        ("train.csv", "valid.csv", "test.csv"),
        ("set-Training.csv", "set-Validation.csv", "set-Testing.csv"),
    ],
)
@pytest.mark.parametrize("head", [(), ("path,label",)])
def test_a_file_for_each_split_is_read_and_reported(
    tmp_path: Path, names: Sequence[str], head: Sequence[str]
) -> None:
    lists(tmp_path, names, head)
    data = read(f"csv:{tmp_path / names[0]}")
    test, _ = load_test(config(f"csv:{tmp_path / names[0]}"))
    parts = {part.images_NCHW[0].tobytes() for part in (data.train, data.val, test)}
    assert parts == {gray(0).tobytes(), gray(12).tobytes(), gray(24).tobytes()}
    listed = f"train {names[0]}, val {names[1]}, test {names[2]}"
    assert (
        data.notes[0] == f"a file for each split: {listed}; --dataset.columns split=none reads {names[0]} alone"
    )
    alone = read(f"csv:{tmp_path / names[0]}", columns="split=none")
    assert len(alone.train) == 8 and not any("each split" in note for note in alone.notes)


def with_splits(root: Path, column: str, words: Sequence[str]) -> str:
    images(root, [f"{x}.png" for x in ids()])
    lines = [f"{x}.png,{'ab'[i % 2]},{words[i // 10]}" for i, x in enumerate(ids())]
    return table(root / "t.csv", f"filename,label,{column}", *lines)


@pytest.mark.parametrize("column", ["set", "Subset", "partition", "phase", "dataset", "Usage", "data_split"])
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "Validate", "TEST set")])
def test_a_column_of_splits_is_recognised_by_name_and_cells(
    tmp_path: Path, column: str, words: Sequence[str]
) -> None:
    name = with_splits(tmp_path, column, words)
    data, (test, _) = read(name), load_test(config(name))
    assert [len(part) for part in (data.train, data.val, test)] == [10, 10, 10]
    assert data.notes[0] == (
        f"columns: path=filename,label=label,split={column} (recognised; --dataset.columns names others)"
    )
    unusual = [note for note in data.notes if note.startswith("cells are read")]
    assert unusual == (
        []
        if words[0] == "train"
        else ["cells are read as splits: Training as train, Validate as val, TEST set as test"]
    )
    assert len(read(name, columns="split=none").train) == 22


@pytest.mark.parametrize(
    ("column", "words", "listed"),
    [
        ("where", ("train", "val", "test"), "test, train, val"),
        ("Usage", ("Training", "PublicTest", "PrivateTest"), "PrivateTest, PublicTest, Training"),
        ("set", ("train", "test", "extra"), "extra, test, train"),
        ("set", ("train", "train", "train"), "train"),
    ],
)
def test_a_column_that_seems_to_say_splits_is_noted(
    tmp_path: Path, column: str, words: Sequence[str], listed: str
) -> None:
    name = with_splits(tmp_path, column, words)
    data = read(name)
    assert len(data.train) == 22
    assert (
        f"column {column} seems to say splits ({listed}), and is not used: --dataset.columns split={column} uses it, "
        "where its cells are train, val or test"
    ) in data.notes
    assert not any("seems to say" in note for note in read(name, columns="split=none").notes)


def test_other_columns_say_no_splits(tmp_path: Path) -> None:
    for column, words in (
        ("set", ("a", "b", "c")),
        ("fold", ("0", "1", "2")),
        ("text", ("training", "ok", "")),
    ):
        assert not any("split" in n for n in read(with_splits(tmp_path, column, words)).notes if "cut" not in n)
    name = with_splits(tmp_path, "set", ("train", "val", "test"))
    assert read(name, columns="label=set").class_names == ("test", "train", "val")


def test_files_that_are_no_splits_of_a_list_stay_out(tmp_path: Path) -> None:
    lists(tmp_path, ["train.csv", "val.csv"], ["path,label"])
    table(tmp_path / "test.csv", "path", "x00.png")
    table(tmp_path / "other_test.csv", "path,label", "x00.png,0")
    table(tmp_path / "train_sizes.csv", "path,label", "x00.png,0")
    data = read(f"csv:{tmp_path / 'train.csv'}", test_from_train=0.25)
    assert "test.csv beside the table is left out, because its columns are others" in data.notes
    assert data.notes[1].startswith("a file for each split: train train.csv, val val.csv;")
    (tmp_path / "validation.csv").write_text((tmp_path / "val.csv").read_text())
    with pytest.raises(
        UserError, match=r"has val.csv and validation.csv, which are one split, val: .*split=none"
    ):
        read(f"csv:{tmp_path / 'train.csv'}")
    table(
        tmp_path / "train.csv",
        "path,label,split",
        *(f"x{i:02d}.png,{i % 2},{s}" for i, s in enumerate(["train", "train", "val", "val"])),
    )
    assert len(read(f"csv:{tmp_path / 'train.csv'}").val) == 2


def one_hot(root: Path, cells: Sequence[str], unlabelled: bool = False) -> str:
    zero, one = cells
    rows = [[one if c == i % 3 else zero for c in range(3)] + [zero] for i in range(30)]
    if unlabelled:
        rows[5] = [zero] * 4
    images(root, [f"{x}.png" for x in ids()])
    return table(
        root / "t.csv",
        "image,MEL,NV,BCC,UNK,age",
        *(",".join([f"{x}.png", *row, str(i + 2)]) for i, (x, row) in enumerate(zip(ids(), rows, strict=True))),
    )


@pytest.mark.parametrize("cells", [("0", "1"), ("0.0", "1.0")])
def test_one_hot_columns_are_recognised_and_named(tmp_path: Path, cells: Sequence[str]) -> None:
    name = one_hot(tmp_path, cells)
    data = read(name)
    assert data.class_names == ("BCC", "MEL", "NV")
    assert data.notes[:2] == (
        "columns: path=image,label=MEL+NV+BCC+UNK (recognised; --dataset.columns names others)",
        "columns without an image, which are no classes: UNK",
    )
    assert whole(name) == whole(name, columns="label=MEL+NV + BCC")
    expected = {gray(i).tobytes(): ("MEL", "NV", "BCC")[i % 3] for i in range(30)}
    assert dict(whole(name)) == expected


def test_a_line_without_a_label_or_with_two_is_refused(tmp_path: Path) -> None:
    name = one_hot(tmp_path, ("0", "1"), unlabelled=True)
    with pytest.raises(UserError, match=r"line 7: none of MEL, NV, BCC is 1: .*--dataset.unlabelled leave_out"):
        read(name, columns="label=MEL+NV+BCC")
    data = read(name, columns="label=MEL+NV+BCC", unlabelled="leave_out")
    assert "lines left out, because they have no label: 1" in data.notes
    assert len(whole(name, columns="label=MEL+NV+BCC", unlabelled="leave_out")) == 29
    with pytest.raises(
        UserError, match=r"line 7: none of MEL, NV, BCC, UNK is 1: .*--dataset.unlabelled leave_out"
    ):
        read(name)
    assert len(whole(name, unlabelled="leave_out")) == 29
    with pytest.raises(
        UserError, match=r"line 2: age is .2., and not 0 or 1: correct it, or name other columns"
    ):
        read(name, columns="label=MEL+NV+BCC+age", unlabelled="leave_out")
    lines = Path(name.removeprefix("csv:")).read_text().splitlines()
    name = table(tmp_path / "t.csv", lines[0], "x00.png,1,1,0,0,3", *lines[2:])
    with pytest.raises(UserError, match=r"line 2: MEL and NV are 1: multi-label data are not supported"):
        read(name, columns="label=MEL+NV+BCC")


def test_ungradable_lines_are_refused_or_left_out(tmp_path: Path) -> None:
    images(tmp_path, [f"{x}.png" for x in ids(9)])
    lines = [f"{x}.png,{'' if i == 4 else i % 2},{int(i != 4)}" for i, x in enumerate(ids(9))]
    name = table(tmp_path / "t.csv", "image_id,adjudicated_dr_grade,adjudicated_gradable", *lines)
    with pytest.raises(UserError, match="line 6: label is empty"):
        read(name)
    assert len(whole(name, unlabelled="leave_out")) == 8


def joined(root: Path, **changes: Any) -> str:
    images(root, [f"{x}.png" for x in ids()])
    facts = [f"{x},{i},{'' if i % 5 == 4 else f'L{i // 3}'}" for i, x in enumerate(ids())]
    table(
        root / "facts.csv", changes.get("head", "image,age,lesion_id"), *changes.get("facts", reversed(facts))
    )
    return table(root / "t.csv", "image,label", *(f"{x},{'ab'[i % 2]}" for i, x in enumerate(ids())))


def test_a_second_table_brings_the_patients(tmp_path: Path) -> None:
    name = joined(tmp_path)
    shown = read(name, images="{image}.png").notes
    assert any(
        "facts.csv beside the table has lesion_id of the images, which is not used: --dataset.join" in n
        for n in shown
    )
    data = read(name, images="{image}.png", join="facts.csv")
    assert data.notes[0].startswith("columns: path=image,label=label,patient=lesion_id (recognised")
    assert data.notes[1] == "images without a patient, each a patient of its own: 6"
    assert data.train.patients_N is not None
    expected = {gray(i).tobytes(): f"L{i // 3}" for i in range(30) if i % 5 != 4}
    for image, patient in zip(data.train.images_NCHW, data.train.patients_N, strict=True):
        assert expected.get(image.tobytes(), patient) == patient


def test_a_second_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for changes, message in (
        (
            {"facts": ["x00,1,L0", "x00,1,L1"]},
            r"facts.csv line 3: image x00 has another line with other cells: keep one",
        ),
        (
            {"facts": ["y,1,L0"]},
            r"dataset.join facts.csv has no line of any image of .*its image is y, and not x00",
        ),
        ({"facts": []}, r"its image is empty, and not x00"),
        (
            {"head": "name,age,lesion_id"},
            r"facts.csv line 1: dataset.join by column image is no column of name, age",
        ),
    ):
        with pytest.raises(UserError, match=message):
            read(joined(tmp_path, **changes), images="{image}.png", join="facts.csv")
    with pytest.raises(
        UserError, match=r"dataset.join none.csv: .*none.csv is not a file: correct it \(it is rel"
    ):
        read(joined(tmp_path), images="{image}.png", join="none.csv")
    name = table(tmp_path / "t.csv", "a,b,label", "x00,1,x")
    with pytest.raises(
        UserError, match=r"dataset.join facts.csv needs a column that both tables have: name it with"
    ):
        read(name, images="{a}.png", join="facts.csv")


def test_an_empty_id_is_a_patient_of_its_own(tmp_path: Path) -> None:
    images(tmp_path, [f"{x}.png" for x in ids()])
    lines = [f"{x}.png,{'ab'[i // 2 % 2]},{'' if i % 2 else i // 4}" for i, x in enumerate(ids())]
    data = read(table(tmp_path / "t.csv", "path,label,patient_id", *lines))
    test, _ = load_test(config(f"csv:{tmp_path / 't.csv'}"))
    parts = [data.train, data.val, test]
    patients = [set(part.patients_N.tolist()) for part in parts if part.patients_N is not None]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 15 + 8
    assert data.notes[0] == "images without a patient, each a patient of its own: 15"


@pytest.mark.parametrize("word", ["NA", "nan", "NaN", "None", "unknown", "-", "NULL", "n/a", "?", "<NA>"])
def test_a_word_for_no_id_is_no_patient(tmp_path: Path, word: str) -> None:
    images(tmp_path, [f"{x}.png" for x in ids()])
    lines = [f"{x}.png,{'ab'[i // 2 % 2]},{word if i % 2 else f'P{i // 4}'}" for i, x in enumerate(ids())]
    data = read(table(tmp_path / "t.csv", "path,label,patient_id", *lines))
    assert data.notes[0] == "images without a patient, each a patient of its own: 15"
    assert data.train.patients_N is not None
    found = [patient for patient in data.train.patients_N.tolist() if not patient.startswith("P")]
    assert len(set(found)) == len(found) > 5


def test_masks_in_a_table_are_reported_and_kept(tmp_path: Path) -> None:
    images(tmp_path, [f"{x}{end}.png" for x in ids(8) for end in ("", "_mask")])
    lines = [f"{x}{end}.png,{'ab'[i % 2]}" for i, x in enumerate(ids(8)) for end in ("", "_mask")]
    name = table(tmp_path / "t.csv", "path,label", *lines)
    data = read(name)
    assert len(whole(name)) == 16
    assert data.notes[0].startswith(
        "lines that seem to list masks of other lines' pictures, and are kept: 8 (x00_mask.png,"
    )


def test_settings_of_another_form_of_data_are_reported(tmp_path: Path) -> None:
    images(tmp_path, [f"{c}/{x}.png" for c in "ab" for x in ids(5)])
    data = read(f"folder:{tmp_path}", columns="label=dx", unlabelled="leave_out")
    assert data.notes[-1] != data.notes[-2]
    for name in ("columns", "unlabelled"):
        assert f"dataset.{name} is not used: it is for csv: data" in data.notes
    name = table(tmp_path / "t.csv", "path,label", *(f"{c}/{x}.png,{c}" for c in "ab" for x in ids(5)))
    assert "dataset.levels is not used: it is for folder: data" in read(name, levels=("any", "class")).notes


def test_half_a_million_lines_would_be_read_in_time(tmp_path: Path) -> None:
    """Work for a line must not grow with the number of classes or lines."""
    import time

    from rlcas.config import DatasetConfig
    from rlcas.data.table import open_csv

    write_image(tmp_path / "x.png", gray(0))

    def seconds(count: int) -> float:
        table(tmp_path / "list.csv", "path,label", *(f"x.png,{i // 2}" for i in range(count)))
        start = time.process_time()
        source = open_csv(tmp_path / "list.csv", DatasetConfig())
        assert len(np.unique(source.splits["all"].labels_N)) == count // 2
        return time.process_time() - start

    # 32 times the lines: 32 if each takes the same time, several hundred if it takes longer with every class.
    assert seconds(64_000) < 150 * seconds(2_000)
