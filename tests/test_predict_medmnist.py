"""`rlcas predict --format medmnist`, held against MedMNIST's own Evaluator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_run import save_run
from tiny import tiny_config, tiny_set

import rlcas
from rlcas.data.medmnist import medmnist_info
from rlcas.deploy.predict import Predictions
from rlcas.errors import UserError
from rlcas.types import TrainingData

CPU = {"device": "cpu"}


def evaluator_at(root: Path) -> Any:
    """Return MedMNIST's Evaluator for files in `root`; by itself it reads ~/.medmnist."""
    from medmnist.evaluator import Evaluator

    class AtRoot(Evaluator):
        def __init__(self, flag: str, split: str, size: Any = None) -> None:
            super().__init__(flag, split, size, root=str(root))

    return AtRoot


def official_names(flag: str) -> list[str]:
    labels = medmnist_info()[flag]["label"]
    return [labels[str(label)] for label in range(len(labels))]


def write_set(path: Path, num_classes: int, num_images: int = 60) -> Path:
    """Write noise with labels in turn, in MedMNIST's form."""
    arrays: dict[str, Any] = {}
    for seed, split in enumerate(("train", "val", "test")):
        images = tiny_set(num_images, seed, num_classes=num_classes)
        arrays |= {f"{split}_images": images.images_NCHW[:, 0], f"{split}_labels": images.labels_N[:, None]}
    np.savez(path, **arrays)
    return path


def run_of(folder: Path, class_names: list[str]) -> Path:
    num_classes = len(class_names)
    images = tiny_set(60, 0, num_classes=num_classes)
    data = TrainingData(name="tiny", class_names=tuple(class_names), train=images, val=images)
    return save_run(folder, data, tiny_config())


@pytest.mark.parametrize(
    ("flag", "size", "split", "numbered"),
    [
        ("breastmnist", "", "test", False),
        ("breastmnist", "_64", "val", True),
        ("bloodmnist", "", "train", False),
        ("retinamnist", "_128", "test", True),
    ],
)
def test_the_evaluator_reads_back_the_same_auc_and_acc(
    tmp_path: Path, flag: str, size: str, split: str, numbered: bool
) -> None:
    official = official_names(flag)
    # Of a folder, the classes may have another order than MedMNIST's labels.
    names = list(map(str, range(len(official)))) if numbered else official[::-1]
    run = run_of(tmp_path / "a run@1.0", names)
    file = write_set(tmp_path / f"{flag}{size}.npz", len(official))
    found = rlcas.predict(run, f"{file}:{split}_images", CPU)
    written = found.write_medmnist(tmp_path / "results", run="a run@1.0")
    rows = [line.split(",") for line in written.read_text().splitlines()]
    assert [row[0] for row in rows] == [str(index) for index in range(60)]
    assert {len(row) for row in rows} == {1 + len(official)}
    Evaluator = evaluator_at(tmp_path)
    of_scores = Evaluator(flag, split, size.lstrip("_") or None).evaluate(
        found.p_NC[:, [names.index(name) for name in (official if not numbered else names)]]
    )
    assert Evaluator.parse_and_evaluate(str(written)) == of_scores
    assert (
        written.name == f"{flag}{size}_{split}_[AUC]{of_scores.AUC:.3f}_[ACC]{of_scores.ACC:.3f}@a-run-1-0.csv"
    )
    # The Evaluator writes its own file of that name: there is one, so it took the name apart as meant.
    assert [path.name for path in (tmp_path / "results").iterdir()] == [written.name]


@pytest.mark.parametrize("flag", ["breastmnist", "retinamnist"])
def test_official_files_are_read_back_too(tmp_path: Path, real_data: Path, flag: str) -> None:
    run = run_of(tmp_path / "run", official_names(flag))
    found = rlcas.predict(run, real_data / f"{flag}.npz", CPU)
    written = found.write_medmnist(str(tmp_path))
    metrics = evaluator_at(real_data).parse_and_evaluate(str(written))
    assert written.name == f"{flag}_test_[AUC]{metrics.AUC:.3f}_[ACC]{metrics.ACC:.3f}@rlcas.csv"


def test_the_command_writes_the_file_into_a_folder(tmp_path: Path) -> None:
    run = run_of(tmp_path / "first", ["0", "1"])
    write_set(tmp_path / "breastmnist.npz", 2)
    words = ["predict", "first", "breastmnist.npz:val_images", "--format", "medmnist", "--device", "cpu"]
    for out, folder in (([], tmp_path), (["--out", "results"], tmp_path / "results")):
        command = [sys.executable, "-m", "rlcas", *words, *out]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        (file,) = folder.glob("breastmnist_val_*@first.csv")
        assert done.stdout.splitlines()[-1].endswith(f"{file.name}: 60 images")
    assert not (tmp_path / "predictions.csv").exists() and run.exists()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            ["a.png"],
            r"^a.png: --format medmnist is of a whole split: name one file of MedMNIST, such as breastm",
        ),
        (
            ["breastmnist.npz", "breastmnist.npz"],
            r"^breastmnist.npz, breastmnist.npz: --format medmnist is of a w",
        ),
        (
            ["other.npz"],
            r"^other.npz has no name of MedMNIST, such as breastmnist.npz or .*: rename the file, or",
        ),
        (
            ["breastmnist.npz:more"],
            r"^breastmnist.npz: more is not a split of MedMNIST: name train_images, val_im",
        ),
        (
            ["breastmnist.npz", "--out", "a.csv"],
            r"^--out a.csv: --format medmnist names its file itself: name a f",
        ),
    ],
)
def test_what_is_no_split_of_medmnist_is_refused_before_it_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: list[str], message: str
) -> None:
    from rlcas.commands.command import parse
    from rlcas.commands.deploy import predict
    from rlcas.commands.table import COMMANDS

    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "run", ["0", "1"])
    write_set(tmp_path / "other.npz", 2)
    np.savez("breastmnist.npz", **np.load("other.npz"), more=np.zeros((2, 16, 16), np.uint8))
    words = ["run", *images, "--format", "medmnist"]
    with pytest.raises(UserError, match=message):
        predict(parse("predict", COMMANDS["predict"], words))
    assert not list(tmp_path.glob("*.csv"))


def test_predictions_of_other_images_or_classes_are_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path / "breastmnist.npz", 2, num_images=4)
    paths = tuple(f"{file}:test_images[{index}]" for index in range(4))
    p_NC = np.full((4, 2), 0.5)
    with pytest.raises(
        UserError, match=r"test_images: other images are among the predictions: predict this arr"
    ):
        Predictions((*paths[:3], "a.png"), ("0", "1"), p_NC).write_medmnist(tmp_path)
    with pytest.raises(
        UserError, match=r"the classifier's classes \(a, b\) are not those of breastmnist \(malig"
    ):
        Predictions(paths, ("a", "b"), p_NC).write_medmnist(tmp_path)
    with pytest.raises(UserError, match=r"test_labels does not fit the images: download the file again"):
        Predictions(paths[:3], ("0", "1"), p_NC[:3]).write_medmnist(tmp_path)
    assert not list(tmp_path.glob("*.csv"))
