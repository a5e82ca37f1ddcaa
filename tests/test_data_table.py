from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import config, gray, write_image

from rlcas.data import load, load_test
from rlcas.errors import UserError


def table(folder: Path, *lines: str) -> str:
    for i in range(30):
        write_image(folder / "images" / f"{i}.png", gray(i))
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"csv:{folder / 'table.csv'}"


def test_splits_labels_and_patients_are_read(tmp_path: Path) -> None:
    lines = [
        f"images/{i}.png,{['x', 'y'][i % 2]},{s},p{i // 2}" for i, s in enumerate(["train"] * 4 + ["val"] * 2)
    ]
    name = table(tmp_path, "path, label ,split,patient_id", *lines, "images/9.png,y,Test,p0")
    data = load(config(name))
    assert data.class_names == ("x", "y") and data.name == "table"
    assert data.train.patients_N is not None and data.train.patients_N.tolist() == ["p0", "p0", "p1", "p1"]
    np.testing.assert_array_equal(data.val.images_NCHW[1, 0], gray(5))
    assert data.notes == ("patients in both train and test, a leak: 1 (p0)",)
    assert load_test(config(name))[0].labels_N.tolist() == [1]


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    lines = [f"images/{i}.png,{[2, 10, 1][i % 3]}" for i in range(30)]
    data = load(config(table(tmp_path, "path,label", *lines)))
    assert data.class_names == ("1", "2", "10")
    assert data.train.class_counts(3).tolist() == [7, 7, 7]


def test_a_cut_keeps_patients_together(tmp_path: Path) -> None:
    lines = [f"images/{i}.png,{'xy'[i // 3 % 2]},{i // 3}" for i in range(30)]
    data = load(config(table(tmp_path, "path,label,patient_id", *lines)))
    (test, _) = load_test(config(f"csv:{tmp_path / 'table.csv'}"))
    ids = [
        set(part.patients_N.tolist()) for part in (data.train, data.val, test) if part.patients_N is not None
    ]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 10
    assert "by patients (none is in two splits)" in data.notes[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["where,label", "images/0.png,x"], "table.csv line 1: no column path among where, label: add it"),
        (["path", "images/0.png"], "line 1: no column label among path"),
        (["path,label"], "table.csv lists no images"),
        ([""], "table.csv lists no images: write a line for each"),
        (["path,label", "images/0.png,x", "images/1.png,"], "line 3: label is empty: fill it in"),
        (["path,label", "images/0.png"], "line 2: label is empty"),
        (["path,label", ",x"], "line 2: path is empty: fill it in"),
        (["path,label", "images/0.png,x", '"",y'], "line 3: path is empty"),
        (
            ["path,dx,class", "images/0.png,x,y"],
            r"line 1: several columns may be the label: choose .*label=dx or ",
        ),
        (
            ["file,filename,class", "images/0.png,a,y"],
            r"several columns may be the path: choose .*path=file or ",
        ),
        (["path,dx,Case,case", "images/0.png,x,1,1"], "several columns may be the patient"),
        (
            ["path,MEL,NV", "images/0.png,1,1"],
            r"line 1: no column label .*label=A\+B\+C for columns of 0 and 1",
        ),
        (
            ["path,label,split", "images/0.png,x,extra"],
            "line 2: split 'extra' is unknown: use train, val or test",
        ),
        (["path,label,split", "images/0.png,x,"], "line 2: split '' is unknown"),
        (
            ["path,label", "images/0.png,carcinoma, ductal", "images/1.png,carcinoma, lobular"],
            r'table.csv line 2: it has 3 cells, line 1 has 2: write a cell in quotes .* as "A, B"$',
        ),
        (["images/0.png,x", "images/1.png,a, b"], r"table.csv line 2: it has 3 cells, line 1 has 2: write"),
        (
            ["# made by hand", "path,label", "images/1.png,a"],
            r"no column path .*line 1 is a comment, remove it$",
        ),
        (["# a, b", "path,label,split"], r"line 2: it has 3 cells, .*; if line 1 is a comment, remove it$"),
        (["path,label,label", "images/1.png,a,b"], r"line 1: 2 columns are named label: rename all but one$"),
        (
            ["path,label", "images/0.png,x", "images/99.png,y"],
            "line 3: no image file .*images/99.png: correct the path",
        ),
        (["path,label", f"{'x' * 300},x"], "line 2: no image file .*xxx: correct the path"),
        (["path,label", "images/0.png,x", "images/1.png,x", "images/2.png,x"], "has only one class, 'x'"),
        (
            ["path,label", 'images/0.png,"x', 'y"', "images/1.png,z"],
            r"csv: the class name 'x\\ny' has a line end or",
        ),
        (
            ["path,label,split", "images/0.png,x,train", "images/1.png,y,train"],
            r"--dataset.val_from_train 0\.1",
        ),
    ],
)
def test_a_faulty_table_is_an_error_that_names_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(config(table(tmp_path, *lines)))


def test_separators_at_the_end_of_a_line_are_no_cells(tmp_path: Path) -> None:
    lines = [f'images/{i}.png,"carcinoma, {"xy"[i % 2]}"{"," * (i % 3)}' for i in range(30)]
    assert load(config(table(tmp_path, "path,label", *lines))).class_names == ("carcinoma, x", "carcinoma, y")


def test_a_label_with_more_digits_than_python_reads_is_a_name(tmp_path: Path) -> None:
    lines = [f"images/{i}.png,{['2', '9' * 5000, '10'][i % 3]}" for i in range(30)]
    assert load(config(table(tmp_path, "path,label", *lines))).class_names == ("10", "2", "9" * 5000)


def test_a_file_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv is not a file: check the path after csv:"):
        load(config(f"csv:{tmp_path / 'none.csv'}"))
    (tmp_path / "latin.csv").write_bytes("path,label\nä,b\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.csv is not CSV in UTF-8"):
        load(config(f"csv:{tmp_path / 'latin.csv'}"))
