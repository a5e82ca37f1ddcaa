from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import gray, write_image
from saved_run import save_run
from test_data_folder import dicom
from tiny import CPU, tiny_config, tiny_data, tiny_set, tiny_trainer

import rlcas
from rlcas import settings
from rlcas.data import load, load_test
from rlcas.deploy.predict import Predictions
from rlcas.errors import UserError
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import load_classifier, predict, save_incumbent
from rlcas.types import Float64

TEST = tiny_set(30, seed=5).images_NCHW


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, folder = tiny_config(classifier={"lr": 0.01}), tmp_path_factory.mktemp("run")
    best, _ = fit(tiny_trainer(config), np.zeros(3, np.int64), epochs=3)
    settings.save(config, folder)
    save_incumbent(folder, best, tiny_data(), config)
    return folder


@pytest.fixture(scope="module")
def expected(run: Path) -> Float64:
    p_NC = predict(load_classifier(run, CPU), TEST)
    assert len(set(p_NC.argmax(axis=1))) > 1, "all images have one label"
    return p_NC


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images in two folders below it."""
    folder = tmp_path_factory.mktemp("files")
    for index, image in enumerate(TEST):
        write_image(folder / f"part {index // 20}" / f"{index:02}.png", image[0])
    return folder


def names(files: Path) -> list[str]:
    return [f"{files}/part {index // 20}/{index:02}.png" for index in range(len(TEST))]


def test_a_folder_is_predicted_with_all_folders_below_it(run: Path, files: Path, expected: Float64) -> None:
    found = rlcas.predict(run, files)
    assert list(found.paths) == names(files) and found.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(found.p_NC, expected)
    assert found.labels == ["abc"[c] for c in expected.argmax(axis=1)]


def test_hidden_files_and_those_that_are_no_images_are_passed_over(run: Path, tmp_path: Path) -> None:
    for name in ("a.png", ".a.png", ".cache/a.png", "below/.b.png", "below/b.JPG"):
        write_image(tmp_path / name, TEST[0, 0])
    (tmp_path / "notes.txt").write_text("of no account")
    assert rlcas.predict(run, tmp_path).paths == (f"{tmp_path}/a.png", f"{tmp_path}/below/b.JPG")


def test_masks_beside_their_pictures_are_left_out_with_a_note(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "a_mask.png", "below/b.jpg", "below/b_tumor.png", "c_mask.png"):
        write_image(tmp_path / name, TEST[0, 0])
    pictures = (f"{tmp_path}/a.png", f"{tmp_path}/below/b.jpg", f"{tmp_path}/c_mask.png")
    everything = [tmp_path / name for name in ("a.png", "a_mask.png", "below", "c_mask.png")]
    for sources in (tmp_path, everything):
        assert sorted(rlcas.predict(run, sources).paths) == sorted(pictures)
        assert "left out, because they are masks of pictures beside them: 2" in "".join(capsys.readouterr())
    assert len(rlcas.predict(run, everything, {"dataset.masks": "keep"}).paths) == 5
    with pytest.raises(
        UserError, match=r"a_mask.png has no images but masks of pictures: name .*--dataset.masks keep"
    ):
        rlcas.predict(run, tmp_path / "a_mask.png")
    (tmp_path / "a.png").unlink()
    assert rlcas.predict(run, tmp_path / "a_mask.png").paths == (f"{tmp_path}/a_mask.png",)


@pytest.mark.parametrize(
    ("source", "array"),
    [("{}", "test_images"), ("npz:{}", "test_images"), ("{}:more", "more"), ("npz:{}:more", "more")],
)
def test_arrays_are_predicted_by_their_names(
    run: Path, tmp_path: Path, expected: Float64, source: str, array: str
) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, **{array: TEST[:, 0], "train_images": TEST[:3, 0]})
    found = rlcas.predict(run, source.format(path))
    assert found.paths[3] == f"{path}:{array}[3]" and len(found.paths) == 30
    np.testing.assert_array_equal(found.p_NC, expected)


def test_an_array_named_images_comes_first(run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=TEST[:2, 0], test_images=TEST[:, 0])
    assert rlcas.predict(run, tmp_path / "set.npz").paths[1] == f"{tmp_path}/set.npz:images[1]"


def test_files_folders_and_arrays_are_predicted_in_the_order_given(
    run: Path, files: Path, tmp_path: Path, expected: Float64
) -> None:
    np.savez(tmp_path / "set.npz", images=TEST[:4, 0])
    last = names(files)[-1]
    found = rlcas.predict(run, [last, f"folder:{files}", tmp_path / "set.npz"])
    assert found.paths[0] == last and found.paths[-1] == f"{tmp_path}/set.npz:images[3]"
    np.testing.assert_allclose(found.p_NC, np.concatenate([expected[-1:], expected, expected[:4]]), atol=1e-6)


def test_more_images_than_a_batch_are_read_batch_by_batch(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rlcas.deploy.predict as module

    many = tiny_set(300, seed=7).images_NCHW
    np.savez(tmp_path / "many.npz", images=many[:, 0])
    sizes = []
    monkeypatch.setattr(
        module, "probabilities_of", lambda c, images: sizes.append(len(images)) or predict(c, images)
    )
    found = rlcas.predict(run, tmp_path / "many.npz")
    assert sizes == [256, 44]
    np.testing.assert_array_equal(found.p_NC, predict(load_classifier(run, CPU), many))


@pytest.mark.parametrize(
    ("kind", "dataset"),
    [
        ("rgb into gray", {"channels": 1, "size_px": 12}),
        ("gray into rgb", {"channels": 3, "size_px": 24}),
        ("16 bits", {}),
        ("16 bits", {"window": (100, 3000)}),
        ("dicom", {}),
        ("dicom", {"window": (-50, 1000)}),
        ("dicom with its own window", {}),
        ("dicom with its own window", {"window": (-50, 1000)}),
    ],
)
def test_images_are_prepared_as_those_of_training(
    kind: str, dataset: dict[str, object], tmp_path: Path
) -> None:
    write_set(tmp_path / "set", kind)
    trained = tiny_config(data=f"folder:{tmp_path / 'set'}", dataset=dataset)
    run = save_run(tmp_path / "run", load(trained), trained)
    test, _ = load_test(trained)
    expected = predict(load_classifier(run, CPU), test.images_NCHW)
    assert np.ptp(expected, axis=0).max() > 0.001
    np.testing.assert_array_equal(rlcas.predict(run, tmp_path / "set" / "test").p_NC, expected)


def write_set(root: Path, kind: str) -> None:
    """Write three images a class and split; those of test are brighter than any of training."""
    window = {"WindowCenter": 400, "WindowWidth": 700} if "own" in kind else {}
    for seed, (split, high) in enumerate((("train", 1500), ("val", 1500), ("test", 4000))):
        for class_id, name in enumerate(("a", "b")):
            for i in range(3):
                path = root / split / name / f"{i}.png"
                values = gray(100 * seed + 10 * class_id + i, (16, 16), "uint16") % (high * (i + 1) // 3)
                if kind.startswith("dicom"):
                    dicom(path.with_suffix(".dcm"), values, RescaleSlope=1, RescaleIntercept=-100, **window)
                elif kind == "16 bits":
                    write_image(path, values)
                else:
                    shape = (16, 16, 3) if kind == "rgb into gray" else (16, 16)
                    write_image(path, np.resize(values % 256, shape).astype(np.uint8))


def test_a_conversion_of_images_is_noted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "small.png", gray(0, (8, 8)))
    write_image(tmp_path / "rgb.png", np.zeros((16, 16, 3), np.uint8))
    write_image(tmp_path / "same.png", gray(0, (16, 16)))
    rlcas.predict(run, tmp_path)
    assert (
        "note: 2 of 3 images were converted to gray (luma) of 16x16 px (area filter" in capsys.readouterr().out
    )


def test_a_window_that_is_given_shows_images_of_more_bits(run: Path, tmp_path: Path) -> None:
    wide = write_image(tmp_path / "wide.png", gray(0, (16, 16), "uint16"))
    with pytest.raises(
        UserError, match=r"wide.png has more than 8 bits, but no training image had: set --data"
    ):
        rlcas.predict(run, wide)
    shown = np.rint(255 * np.clip((gray(0, (16, 16), "uint16") - 500.0) / 40000, 0, 1)).astype(np.uint8)
    found = rlcas.predict(run, wide, {"dataset.window": "500,40500"})
    np.testing.assert_array_equal(found.p_NC, predict(load_classifier(run, CPU), shown[None, None]))


def test_frames_are_those_of_the_run_or_of_the_flag(run: Path, tmp_path: Path, expected: Float64) -> None:
    tags = {"NumberOfFrames": len(TEST), "Rows": 16, "Columns": 16}
    cine = dicom(tmp_path / "images" / "IM0001", TEST[:, 0], **tags)
    with pytest.raises(
        UserError, match=r"IM0001 has pixels of shape \(30, 16, 16\): .*--dataset.frame first, middle"
    ):
        rlcas.predict(run, tmp_path / "images")
    third = rlcas.predict(run, cine, {"dataset.frame": "3"})
    np.testing.assert_allclose(third.p_NC, expected[2:3], atol=1e-6)
    own = shutil.copytree(run, tmp_path / "run")
    settings.save(tiny_config(dataset={"frame": "middle"}), own)
    found = rlcas.predict(own, tmp_path / "images")
    assert found.paths == (str(cine),)
    np.testing.assert_allclose(found.p_NC, expected[15:16], atol=1e-6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.png", r"gone.png is not a file or folder: name images, a folder of them, or an npz file"),
        ("notes.txt", r"notes.txt is not an image file: use .png, .jpg, .*, DICOM of any name, "),
        ("empty", r"empty has no images below it: they end in .png, .jpg, "),
        ("webp", r"webp has no images below it but 2 .webp files: they end in .png, .jpg, "),
        ("broken.png", r"broken.png cannot be read as an image \(.*\): replace or remove it"),
        ("npz:gone.npz", r"gone.npz is not a file: check the path after npz:"),
        ("set.npz", r"set.npz has no array images or test_images \(it has x\): name one as set.npz:ARRAY"),
        ("set.npz:y", r"set.npz has no array y \(it has x\): name one as set.npz:ARRAY"),
        ("set.npz:x", r"set.npz: x is float64: images must be uint8 or wider integers"),
        ("none.npz", r"none.npz has no images: name others"),
    ],
)
def test_what_cannot_be_read_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("webp").mkdir()
    for name in ("a", "b"):
        Path(f"webp/{name}.webp").write_bytes(b"RIFF")
    Path("notes.txt").write_text("of no account")
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    np.savez("set.npz", x=np.zeros((2, 16, 16)))
    np.savez("none.npz", images=np.zeros((0, 16, 16), np.uint8))
    with pytest.raises(UserError, match=f"^{message}"):
        rlcas.predict(run, source)
    with pytest.raises(UserError, match=r"^no images are named: name a folder, files or an npz array$"):
        rlcas.predict(run, [])


def test_a_table_has_a_line_an_image_with_nine_digits(tmp_path: Path) -> None:
    table = Predictions(("x, y.png", "ü.png"), ("a", "b,c"), np.array([[2 / 3, 1 / 3], [1e-12, 1.0]]))
    table.write(tmp_path / "table.csv")
    text = 'path,label,a,"b,c"\n"x, y.png",a,0.666666667,0.333333333\nü.png,"b,c",1e-12,1\n'
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == text


def test_a_name_that_is_not_utf_8_keeps_its_bytes_in_the_table(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    Predictions((name,), ("a", "b"), np.array([[0.25, 0.75]])).write(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == b"path,label,a,b\r\n\xff.png,b,0.25,0.75\r\n"


@pytest.mark.medium
def test_the_command_writes_the_table(run: Path, files: Path, expected: Float64, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlcas", "predict", str(run), str(files), "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("predictions.csv: 30 images\n") and done.stderr == ""
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == names(files)
    assert [[row["a"], row["b"], row["c"]] for row in rows] == [[f"{p:.9g}" for p in p_C] for p_C in expected]
    assert [row["label"] for row in rows] == ["abc"[c] for c in expected.argmax(axis=1)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["gone.png"],
            "rlcas: gone.png is not a file or folder: name images, a folder of them, or an npz file\n",
        ),
        (["gone.png", "--device", "cpu", "b.png"], "rlcas: gone.png is not a file or folder: name images"),
        (
            ["a.png", "--out", "/dev/null/t.csv"],
            "rlcas: /dev/null/t.csv cannot be written: /dev/null cannot be a",
        ),
        (["a.png", "--out", "a.png"], "rlcas: --out a.png is not a CSV file: name one that ends in .csv\n"),
        (
            ["a.png", "--seed", "1"],
            "rlcas: seed is not a setting of `rlcas predict`, which keeps the run's own",
        ),
        ([], "rlcas: the following arguments are required: IMAGES\n"),
    ],
)
def test_a_fault_of_the_command_is_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    from rlcas.cli import main

    monkeypatch.chdir(tmp_path)
    try:
        status = main(["predict", str(run), *words])
    except SystemExit as exit:
        status = exit.code
    error = capsys.readouterr().err
    assert status == 2 and error.startswith(message) and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
