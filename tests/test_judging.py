"""A run's pool is judged by its training images: copies are marked once, left out, and scored class by class."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_config, tiny_data

from cluster.pools.copies import find_and_mark_copies
from cluster.pools.judge import real_classifier
from cluster.pools.scores import score_pool
from cluster.pools.stored import run_pool
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.reports.contact_sheet import Pair, pairs_a_class, write_contact_sheet
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.types import ImageSet, TrainingData, Uint8
from synth.pool import COPIES_FILE, PoolWriter, SyntheticPool

CPU = torch.device("cpu")
DATA = tiny_data()


def config(**scoring: object) -> RunConfig:
    return tiny_config(sampler={"epochs": 1}, synth={"scoring": {"pool_only_epochs": 1, **scoring}})


def new_images(class_id: int, num: int) -> Uint8:
    """Return images like those of `tiny_data`, but others."""
    noise = np.random.default_rng(100 + class_id).integers(0, 120, (num, 1, 16, 16))
    return np.clip(noise + 60 * class_id, 0, 255).astype(np.uint8)


def of_class(class_id: int) -> Uint8:
    return DATA.train.images_NCHW[DATA.train.labels_N == class_id]


def write_pool(folder: Path, images_C: list[Uint8]) -> SyntheticPool:
    sizes_C = [len(images) for images in images_C]
    writer = PoolWriter(
        folder, class_names=DATA.class_names, image_shape_CHW=(1, 16, 16), shard_images=4, source={"seed": 0}
    )
    for class_id, span in writer.missing(sizes_C):
        writer.write(class_id, span, images_C[class_id][span.start : span.stop])
    writer.commit(sizes_C)
    return SyntheticPool(folder)


@pytest.fixture
def planted(tmp_path: Path) -> SyntheticPool:
    """Class a: 6 new images and copies of 2; class b: 6 new ones and the mirrored copy of 1; class c: new ones."""
    return write_pool(
        tmp_path / "pool",
        [
            np.concatenate([new_images(0, 3), of_class(0)[:2], new_images(0, 6)[3:]]),
            np.concatenate([of_class(1)[4:5, ..., ::-1], new_images(1, 6)]),
            new_images(2, 6),
        ],
    )


@pytest.mark.parametrize("extractor", ["classifier", "pixels"])
def test_planted_copies_are_marked_and_left_out(planted: SyntheticPool, tmp_path: Path, extractor: str) -> None:
    folder, settings = RunFolder(tmp_path), config(extractor=extractor)
    find_and_mark_copies(RunContext(folder, settings, DATA, CPU), planted)
    marks = json.loads((tmp_path / "pool" / COPIES_FILE).read_text())
    assert [set(wanted) <= set(found) for wanted, found in zip(([3, 4], [0], []), marks["copies"], strict=True)]
    assert sum(map(len, marks["copies"])) <= 5
    kept = run_pool(folder, settings, planted.folder)
    pictures = {image.tobytes() for image in np.concatenate([of_class(0), of_class(1)[..., ::-1]])}
    for class_id, size in enumerate(kept.class_sizes_C):
        assert not pictures & {image.tobytes() for image in kept.images(class_id, np.arange(size))}
    assert (tmp_path / "judge").exists() == (extractor == "classifier")


def test_an_interruption_before_the_marks_changes_nothing(
    planted: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = RunFolder(tmp_path), tmp_path / "pool" / COPIES_FILE
    find_and_mark_copies(RunContext(folder, config(), DATA, CPU), planted)
    assert "note: copies of training images are left out: a " in capsys.readouterr().out
    once, judge = path.read_bytes(), (tmp_path / "judge/model.safetensors").read_bytes()
    path.unlink()
    find_and_mark_copies(RunContext(folder, config(), DATA, CPU), planted)
    assert path.read_bytes() == once
    for file in (path, tmp_path / "judge/model.safetensors"):
        file.unlink()
    find_and_mark_copies(RunContext(folder, config(), DATA, CPU), planted)
    assert path.read_bytes() == once and (tmp_path / "judge/model.safetensors").read_bytes() == judge


def test_existing_marks_are_not_made_again(planted: SyntheticPool, tmp_path: Path) -> None:
    (tmp_path / "pool" / COPIES_FILE).write_text("{}")
    find_and_mark_copies(RunContext(RunFolder(tmp_path), config(), DATA, CPU), planted)
    assert (tmp_path / "pool" / COPIES_FILE).read_text() == "{}"
    assert not (tmp_path / "judge").exists()


def test_the_marks_of_a_pool_from_elsewhere_lie_in_the_runs_folder(
    planted: SyntheticPool, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    find_and_mark_copies(RunContext(folder, config(extractor="pixels"), DATA, CPU), planted)
    assert not (planted.folder / COPIES_FILE).exists()
    assert run_pool(folder, config(), planted.folder).class_sizes_C.tolist()[0] <= 6


def test_copies_are_kept_where_the_settings_say_so(
    planted: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(extractor="pixels", leave_out_copies=False)
    find_and_mark_copies(RunContext(RunFolder(tmp_path), settings, DATA, CPU), planted)
    assert "note: copies of training images are marked, but kept: a " in capsys.readouterr().out
    assert run_pool(RunFolder(tmp_path), settings, planted.folder).class_sizes_C.tolist() == [8, 7, 6]


def test_a_pool_without_copies_is_said_to_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", [new_images(c, 3) for c in range(3)])
    find_and_mark_copies(RunContext(RunFolder(tmp_path), config(extractor="pixels"), DATA, CPU), pool)
    assert "no synthetic image is a copy of a training image" in capsys.readouterr().out


def test_a_class_that_holds_copies_alone_keeps_them_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = np.concatenate([new_images(0, 3), of_class(0)[:1]])
    pool = write_pool(tmp_path / "pool", [mixed, of_class(1)[:5], new_images(2, 3)])
    folder, settings = RunFolder(tmp_path), config(extractor="pixels", pool_only_epochs=0)
    find_and_mark_copies(RunContext(folder, settings, DATA, CPU), pool)
    said = capsys.readouterr().out
    assert "note: copies of training images are left out: a 1\n" in said
    assert (
        "note: all 5 synthetic images of class 'b' are copies of training images; they are kept unmarked"
        in said
    )
    kept = run_pool(folder, settings, pool.folder)
    assert kept.class_sizes_C.tolist() == [3, 5, 3]
    figures = score_pool(RunContext(folder, settings, DATA, CPU), kept, None)
    assert [scores["copy_rate"] for scores in figures["per_class"]] == [0.0, 1.0, 0.0]


def test_validation_images_that_are_training_images_are_no_yardstick(
    planted: SyntheticPool, tmp_path: Path
) -> None:
    mirrored = ImageSet(images_NCHW=DATA.train.images_NCHW[..., ::-1], labels_N=DATA.train.labels_N)
    data = replace(DATA, val=mirrored)
    with pytest.raises(
        UserError, match="every validation image is a training image too, so that none shows how"
    ):
        find_and_mark_copies(RunContext(RunFolder(tmp_path), config(extractor="pixels"), data, CPU), planted)


def test_scores_are_those_of_the_images_that_are_kept(planted: SyntheticPool, tmp_path: Path) -> None:
    folder, settings = RunFolder(tmp_path), config()
    find_and_mark_copies(RunContext(folder, settings, DATA, CPU), planted)
    pool = run_pool(folder, settings, planted.folder)
    figures = score_pool(RunContext(folder, settings, DATA, CPU), pool, DATA.val)
    sizes_C = pool.class_sizes_C.tolist()
    assert figures["n_synthetic"] == sum(sizes_C) and figures["num_copies"] == 21 - sum(sizes_C)
    assert figures["copy_rate"] == 0.0
    assert figures["copy_rate_before"] == pytest.approx(figures["num_copies"] / 21)
    assert figures["extractor"] == "penultimate features of the Baseline's resnet18 of width 8"
    assert (figures["n_real"], figures["n_held_out"], figures["feature_dims"]) == (41, 24, 64)
    assert [scores["class"] for scores in figures["per_class"]] == ["a", "b", "c"]
    assert [scores["n_synthetic"] for scores in figures["per_class"]] == sizes_C
    assert all(np.isnan(scores["fid"]) for scores in figures["per_class"])
    assert len(figures["pool_only"]["per_class_recall"]) == 3
    low, high = figures["intervals"]["kid"]
    assert low < figures["kid"] < high
    assert json.loads(folder.scores.read_text())["kid"] == figures["kid"]


def test_every_image_has_a_line_that_names_its_nearest_training_image(
    planted: SyntheticPool, tmp_path: Path
) -> None:
    folder, settings = RunFolder(tmp_path), config(extractor="pixels", pool_only_epochs=0)
    find_and_mark_copies(RunContext(folder, settings, DATA, CPU), planted)
    pool = run_pool(folder, settings, planted.folder)
    assert score_pool(RunContext(folder, settings, DATA, CPU), pool, None)["pool_only"] is None
    with folder.image_scores.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["class"], int(line["image"])) for line in lines] == [
        (name, i) for name, size in zip("abc", (8, 7, 6), strict=True) for i in range(size)
    ]
    copied, flipped = lines[3], lines[8]
    assert copied["nearest_image"] == str(np.flatnonzero(DATA.train.labels_N == 0)[0])
    assert float(copied["distance"]) == pytest.approx(0, abs=1e-5)
    assert [copied[name] for name in ("nearest_class", "mirrored", "copy", "marked", "authentic")] == [
        "a", "0", "1", "1", "0",
    ]  # fmt: skip
    assert (flipped["nearest_class"], flipped["mirrored"], flipped["copy"]) == ("b", "1", "1")


def test_another_extractor_judges_again_but_the_marks_stay(planted: SyntheticPool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    find_and_mark_copies(RunContext(folder, config(extractor="pixels"), DATA, CPU), planted)
    before = (tmp_path / "pool" / COPIES_FILE).read_bytes()
    other = config(pool_only_epochs=0)
    find_and_mark_copies(RunContext(folder, other, DATA, CPU), planted)
    figures = score_pool(RunContext(folder, other, DATA, CPU), run_pool(folder, other, planted.folder), None)
    assert figures["extractor"].startswith("penultimate")
    assert (tmp_path / "pool" / COPIES_FILE).read_bytes() == before


def test_without_test_images_the_pool_is_scored_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from small_run import write_npz

    from cluster.runs.run import _test_if_any

    with np.load(write_npz(tmp_path / "shapes.npz")) as arrays:
        np.savez(tmp_path / "untested.npz", **{key: arrays[key] for key in arrays if "test" not in key})
    folder = RunFolder(tmp_path / "none")
    assert len(_test_if_any(folder, RunConfig(data=f"npz:{tmp_path / 'shapes.npz'}"))) == 18
    assert _test_if_any(folder, RunConfig(data=f"npz:{tmp_path / 'untested.npz'}")) is None
    assert "for there are no real test images: the run has no test images: " in capsys.readouterr().out


def pair(side_px: int, channels: int, *, copy: bool = False) -> Pair:
    black = np.zeros((channels, side_px, side_px), np.uint8)
    white = np.full_like(black, 255)
    return Pair(
        synthetic_CHW=black, real_CHW=white, distance=0.25, real_class="class 0", mirrored=copy, copy=copy
    )


@pytest.mark.parametrize(
    ("num_classes", "side_px", "channels", "tile_px"),
    [(2, 28, 1, 112), (8, 64, 3, 128), (20, 224, 3, 128), (100, 28, 3, 112), (2, 224, 1, 128)],
)
def test_a_contact_sheet_has_room_for_every_pair(
    num_classes: int, side_px: int, channels: int, tile_px: int, tmp_path: Path
) -> None:
    pairs = [pair(side_px, channels)] * pairs_a_class(num_classes)
    write_contact_sheet(tmp_path / "sheet.png", {f"class {c}": pairs for c in range(num_classes)}, "caption")
    sheet = np.array(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape[1] < 2000 and sheet.shape[0] < 7000
    for value in (0, 255):
        pure = (sheet == value).all(axis=2).sum()
        assert pure == pytest.approx(len(pairs) * num_classes * tile_px**2, rel=0.02)


def test_copies_are_framed_in_red_and_a_class_may_have_fewer_pairs(tmp_path: Path) -> None:
    red = []
    for number in (0, 1):
        pairs = {"a": [pair(28, 1, copy=True)] * number + [pair(28, 1)], "b" * 500: [pair(28, 1)]}
        write_contact_sheet(tmp_path / "sheet.png", pairs, "caption " * 100)
        sheet = np.array(Image.open(tmp_path / "sheet.png"))
        red.append(int((sheet == (192, 30, 30)).all(axis=2).sum()))
    assert red[0] == 0 and red[1] > 2 * 3 * (112 + 224)


def test_the_more_classes_the_fewer_pairs_of_each() -> None:
    assert [pairs_a_class(n) for n in (2, 4, 5, 12, 13, 24, 25, 1000)] == [12, 12, 6, 6, 3, 3, 2, 2]


def test_the_judge_is_the_baseline_of_the_settings(tmp_path: Path) -> None:
    """Invariant 1's other half: synthetic images have no part in it."""
    from rlcas.batches.sources import RealImages
    from rlcas.classifiers.snapshot import to_state_dict
    from rlcas.training.fit import fit
    from rlcas.training.trainer import ClassifierTrainer

    def plain(data: TrainingData) -> dict[str, torch.Tensor]:
        trainer = ClassifierTrainer(data, config(), pool=RealImages(data.train), device=CPU)
        best, _ = fit(trainer, np.zeros(3, np.int64), 1)
        return to_state_dict(best.arrays, trainer.model)

    judged_by = real_classifier(RunContext(RunFolder(tmp_path), config(), DATA, CPU)).model.state_dict()
    expected = plain(DATA)
    assert all(torch.equal(judged_by[name], expected[name]) for name in expected)
