"""A pool is judged by what classifiers learn with it, beyond what as many repeated real images teach."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_run
import torch
from fake_run import metrics_json
from tiny import tiny_config, tiny_data, tiny_set

from cluster.comparison.plan import plan
from cluster.pools.usefulness import added_counts, held_out, images_trained, usefulness, usefulness_or_note
from cluster.runs.dry_run import usefulness_seconds
from rlcas.batches.sources import RealImages
from rlcas.cli import main
from rlcas.commands.runs import synth_score
from rlcas.comparison.usefulness import interval_of, macro_interval, usefulness_figures
from rlcas.config import RunConfig
from rlcas.console import show_table
from rlcas.errors import UserError
from rlcas.jsonable import jsonable
from rlcas.metrics import macro_auc, per_class_average_precision
from rlcas.reports.score_table import usefulness_note, usefulness_rows, usefulness_table
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.settings import as_yaml
from rlcas.types import Float64, ImageSet, TrainingData

CPU = torch.device("cpu")
SIZE_PX = 12
SEEDS = 3


def pictures(per_class: tuple[int, ...], seed: int) -> ImageSet:
    """Return noisy discs, rings and bars at random places."""
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(3), per_class).astype(np.int64)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX / 2
    images = []
    for label in labels_N:
        down, right = rng.uniform(-2, 2, 2)
        radius = np.hypot(x - right, y - down)
        inside = (radius < 3, abs(radius - 3) < 1, abs(x - right) < 1.5)[label]
        images.append(np.clip(100 + 100 * inside + rng.normal(0, 30, (SIZE_PX, SIZE_PX)), 0, 255))
    return ImageSet(images_NCHW=np.stack(images)[:, None].astype(np.uint8), labels_N=labels_N)


def noise(per_class: int) -> RealImages:
    rng = np.random.default_rng(3)
    images_NCHW = rng.integers(0, 256, (3 * per_class, 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    return RealImages(ImageSet(images_NCHW=images_NCHW, labels_N=np.repeat(np.arange(3), per_class)))


FEW = TrainingData(
    name="few", class_names=("a", "b", "c"), train=pictures((6, 5, 4), 0), val=pictures((40, 40, 40), 1)
)


def config(**scoring: object) -> RunConfig:
    scoring = {"usefulness": True, "usefulness_width": 8, "usefulness_seeds": SEEDS, **scoring}
    classifier = {"batch_size": 5, "augment": "none", "lr": 3e-3}
    return tiny_config(classifier=classifier, synth={"scoring": scoring})


def context(folder: Path, data: TrainingData = FEW, settings: RunConfig | None = None) -> RunContext:
    return RunContext(RunFolder(folder), settings or config(), data, CPU)


def small(**scoring: object) -> RunConfig:
    """Return settings of one pair of classifiers that train for one epoch."""
    return tiny_config(
        synth={
            "scoring": {
                "usefulness": True,
                "usefulness_seeds": 1,
                "usefulness_epochs": 1,
                "usefulness_width": 8,
                **scoring,
            }
        }
    )


def test_more_real_images_teach_more_than_repeats_and_noise_teaches_less(tmp_path: Path) -> None:
    """Planted: a pool of other real images, and one of noise under labels."""
    settings = config(usefulness_epochs=15, usefulness_ratio=2.0)
    more, less = (
        usefulness(context(tmp_path, settings=settings), pool)
        for pool in (RealImages(pictures((150, 150, 150), 2)), noise(100))
    )
    for name in ("auc", "average_precision"):
        assert more[name]["difference"] > 0.1
        assert more[name]["low"] > 0, name
        assert less[name]["high"] < 0, name
        assert more[name]["repeats"] == less[name]["repeats"]
        assert more[name]["difference"] == pytest.approx(more[name]["pool"] - more[name]["repeats"])


@pytest.mark.parametrize("sampler", [{}, {"prior": "effective"}, {"batch_mode": "fixed_total", "max_count": 5}])
def test_a_pool_of_the_repeated_images_themselves_makes_no_difference(
    sampler: dict[str, object], tmp_path: Path
) -> None:
    settings = small(usefulness_seeds=2)
    settings = settings.model_copy(update={"sampler": settings.sampler.model_copy(update=sampler)})
    data = tiny_data()
    found = usefulness(context(tmp_path, data, settings), RealImages(data.train))
    of_all = [found[name] for name in ("auc", "average_precision")]
    for of in (*of_all, *found["per_class"]["auc"], *found["per_class"]["average_precision"]):
        assert (of["difference"], of["low"], of["high"]) == (0, 0, 0)
    files = {path.relative_to(tmp_path / "usefulness") for path in (tmp_path / "usefulness").rglob("*.npz")}
    assert files == {Path(arm) / f"{seed}.npz" for arm in ("pool", "repeats") for seed in (0, 1)}


def test_a_trained_classifier_is_not_trained_again_unless_what_decides_it_changes(tmp_path: Path) -> None:
    data, pool = tiny_data(), RealImages(tiny_set(30, 7))

    def times(settings: RunConfig, source: RealImages = pool) -> list[int]:
        usefulness(context(tmp_path, data, settings), source)
        return [(tmp_path / f"usefulness/{arm}/0.npz").stat().st_mtime_ns for arm in ("pool", "repeats")]

    first = times(small())
    assert times(small()) == first
    # Another pool: the repeats stay.
    other = times(small(), RealImages(tiny_set(30, 8)))
    assert other[0] != first[0] and other[1] == first[1]
    longer = times(small(usefulness_epochs=2), RealImages(tiny_set(30, 8)))
    assert longer[0] != other[0] and longer[1] != other[1]


def test_a_damaged_file_of_predictions_is_named(tmp_path: Path) -> None:
    data = tiny_data()
    usefulness(context(tmp_path, data, small()), RealImages(data.train))
    (tmp_path / "usefulness/pool/0.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"usefulness/pool/0.npz is damaged .*: restore or delete it"):
        usefulness(context(tmp_path, data, small()), RealImages(data.train))


def test_the_flag_and_its_setting_are_not_given_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(as_yaml(small()))
    words = argparse.Namespace(folder=tmp_path, usefulness=True, given={"synth.scoring.usefulness": "false"})
    with pytest.raises(UserError, match=r"--usefulness beside --synth.scoring.usefulness false: leave one out"):
        synth_score(words)


def test_validation_images_that_are_training_images_are_left_out() -> None:
    data = tiny_data()
    mirrored = data.train.take(np.array([0, 20]))
    val = ImageSet(
        images_NCHW=np.concatenate([mirrored.images_NCHW[..., ::-1], data.val.images_NCHW]),
        labels_N=np.concatenate([mirrored.labels_N, data.val.labels_N]),
    )
    kept = held_out(replace(data, val=val))
    assert np.array_equal(kept.images_NCHW, data.val.images_NCHW)
    assert np.array_equal(kept.labels_N, data.val.labels_N)


def test_validation_images_of_one_class_have_no_usefulness(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data()
    data = replace(data, val=data.val.take(np.flatnonzero(data.val.labels_N == 1)))
    wrong = (
        "needs validation images of two classes that are no training images, but tiny has 8 of 1: bring others"
    )
    with pytest.raises(UserError, match=wrong):
        usefulness(context(tmp_path, data), RealImages(data.train))
    # A run or a comparison goes on without it.
    assert usefulness_or_note(context(tmp_path, data), RealImages(data.train)) is None
    assert (
        "note: the pool's usefulness is not measured: synth.scoring.usefulness needs" in capsys.readouterr().out
    )
    assert usefulness_or_note(context(tmp_path, settings=small(usefulness=False)), noise(2)) is None


def softmax(seed: int, labels_N: np.ndarray, skill: float, num_classes: int = 3) -> Float64:
    logits_NC = np.random.default_rng(seed).normal(size=(len(labels_N), num_classes))
    logits_NC[np.arange(len(labels_N)), labels_N] += skill
    exp_NC = np.exp(logits_NC)
    return exp_NC / exp_NC.sum(axis=1, keepdims=True)


def test_the_figures_are_means_over_seeds_of_paired_differences() -> None:
    labels_N = np.repeat(np.arange(3), (30, 20, 5))
    pool = {seed: softmax(seed, labels_N, 2.0) for seed in range(3)}
    repeats = {seed: softmax(seed, labels_N, 1.0) for seed in range(3)}
    found = usefulness_figures(pool, repeats, labels_N)
    wanted = np.mean([macro_auc(pool[s], labels_N) - macro_auc(repeats[s], labels_N) for s in range(3)])
    assert found["auc"]["difference"] == pytest.approx(wanted)
    assert found["auc"]["pool"] == pytest.approx(np.mean([macro_auc(p_NC, labels_N) for p_NC in pool.values()]))
    of_classes = [
        np.mean(
            [
                per_class_average_precision(pool[s], labels_N)[c]
                - per_class_average_precision(repeats[s], labels_N)[c]
                for s in range(3)
            ]
        )
        for c in range(3)
    ]
    per_class = found["per_class"]["average_precision"]
    assert [of["difference"] for of in per_class] == pytest.approx(of_classes)
    assert all(-1 <= of["low"] < of["difference"] < of["high"] <= 1 for of in per_class)
    # Five images of the rarest class say less than thirty of the largest.
    width = [of["high"] - of["low"] for of in found["per_class"]["auc"]]
    assert width[2] > width[0]


def test_a_class_without_validation_images_and_the_first_of_two_have_none() -> None:
    labels_N = np.repeat([0, 2], 10)
    found = usefulness_figures({0: softmax(0, labels_N, 2)}, {0: softmax(1, labels_N, 1)}, labels_N)
    assert [math.isnan(of["difference"]) for of in found["per_class"]["auc"]] == [False, True, False]
    assert jsonable(found["per_class"]["auc"][1]) == {"difference": None, "low": None, "high": None}
    assert interval_of(jsonable(found["per_class"]["auc"][1]), 1) is None
    two = usefulness_figures(
        {0: softmax(0, labels_N // 2, 2, 2)}, {0: softmax(1, labels_N // 2, 1, 2)}, labels_N // 2
    )
    assert [math.isnan(of["difference"]) for of in two["per_class"]["auc"]] == [True, False]
    assert two["auc"]["difference"] == two["per_class"]["auc"][1]["difference"]
    assert not any(math.isnan(of["difference"]) for of in two["per_class"]["average_precision"])


def test_the_images_that_are_trained_on_are_counted_for_the_estimate() -> None:
    data, settings = tiny_data(), small(usefulness_seeds=2, usefulness_epochs=3)
    assert added_counts(settings, data).tolist() == [5, 5, 4]
    assert images_trained(settings, data) == 2 * 3 * (41 + 3 * 14)
    cluster = settings.cluster.model_copy(update={"threads_per_episode": 1})
    assert usefulness_seconds(settings.model_copy(update={"cluster": cluster}), data) > 0
    fixed = settings.model_copy(
        update={"sampler": settings.sampler.model_copy(update={"batch_mode": "fixed_total"})}
    )
    assert images_trained(fixed, data) == 2 * 3 * 41


@pytest.mark.parametrize(
    ("compare", "scoring", "wanted"), [(True, False, True), (False, False, False), (False, True, True)]
)
def test_a_comparison_measures_it_unless_it_is_switched_off(compare: bool, scoring: bool, wanted: bool) -> None:
    stated = {
        "compare": {"methods": ["syn_sketch"], "usefulness": compare},
        "synth": {"scoring": {"usefulness": scoring}},
    }
    assert plan(stated).pools["sketch"].synth.scoring.usefulness is wanted
    assert plan({"compare": {"methods": ["syn_sketch"]}}).pools["sketch"].synth.scoring.usefulness


@pytest.mark.parametrize(
    ("setting", "value"), [("usefulness_seeds", 0), ("usefulness_epochs", 0), ("usefulness_ratio", 0)]
)
def test_settings_out_of_range_are_refused(
    setting: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"--synth.scoring.{setting}", str(value)]) == 2
    assert f"rlcas: synth.scoring.{setting} is '0': input should be greater than" in capsys.readouterr().err


@pytest.mark.medium
def test_the_command_adds_it_to_the_scores_of_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_run.write_npz(tmp_path / "shapes.npz")
    rng = np.random.default_rng(5)
    from PIL import Image

    for name in ("disc", "bar", "cross"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (24, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{i}.png")
    with np.load(tmp_path / "shapes.npz") as arrays:
        plain = {**arrays, "class_names": np.array(["disc", "bar", "cross"])}
    np.savez(tmp_path / "shapes.npz", **plain)
    words = ["--data", "npz:shapes.npz", "--pool", "folder:own", "--out", "r", "--sampler.epochs", "1"]
    assert main(["run", *small_run.flags(), *small_run.IN_PROCESS, *words]) == 0
    assert json.loads((tmp_path / "r/metrics.json").read_text())["synthesis"]["usefulness"] is None
    assert "usefulness" not in (tmp_path / "r/report.html").read_text().split('id="settings"')[0]
    capsys.readouterr()
    assert main(["synth", "score", "r", "--usefulness"]) == 0
    said = capsys.readouterr().out
    assert "with the pool minus with repeats, on 14 validation images" in said
    assert (
        "over as many repeated real images, on 14 validation images (2 pairs of resnet18 of width 8, 1" in said
    )
    scores = json.loads((tmp_path / "r/scores.json").read_text())["usefulness"]
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert metrics["synthesis"]["usefulness"] == scores
    assert set(scores) == {
        "auc", "average_precision", "per_class", "n", "class_counts", "seeds", "epochs", "counts", "classifier",
    }  # fmt: skip
    assert (scores["n"], scores["class_counts"], scores["seeds"], scores["epochs"]) == (14, [6, 4, 4], 2, 1)
    for name in ("auc", "average_precision"):
        assert set(scores[name]) == {"difference", "low", "high", "pool", "repeats"}
        assert [set(of) for of in scores["per_class"][name]] == [{"difference", "low", "high"}] * 3
    page = (tmp_path / "r/report.html").read_text()
    assert '<table id="usefulness">' in page and "Usefulness: macro AUC" in page
    assert main(["synth", "score", "r"]) == 0
    assert json.loads((tmp_path / "r/scores.json").read_text())["usefulness"] is None


FOUND = {
    "auc": {"difference": 0.0213, "low": 0.004, "high": 0.0391, "pool": 0.91, "repeats": 0.8887},
    "average_precision": {"difference": -0.01, "low": -0.05, "high": 0.03, "pool": 0.6, "repeats": 0.61},
    "per_class": {
        name: [{"difference": None, "low": None, "high": None}]
        + [{"difference": 0.02, "low": -0.01, "high": 0.05}] * 7
        for name in ("auc", "average_precision")
    },
    "n": 562,
    "class_counts": [0, *[80] * 6, 82],
    "seeds": 3,
    "epochs": 10,
    "counts": [16] * 8,
    "classifier": "resnet18 of width 16",
}


def test_the_table_has_a_row_for_all_classes_and_each(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {**metrics_json(8)["synthesis"], "usefulness": FOUND}
    rows = usefulness_rows(figures)
    assert rows[0] == ("all", "562", "+0.021 (+0.004 to +0.039)", "−0.010 (−0.050 to +0.030)")
    assert rows[1][1:] == ("0", "n/a", "n/a") and len(rows) == 9
    show_table(usefulness_table(figures))
    assert "AUC [95 %]" in capsys.readouterr().out
    assert usefulness_note(FOUND).startswith(
        "usefulness: macro AUC +0.021 (+0.004 to +0.039) and average precision −0.010"
    )
    over = macro_interval(FOUND)
    assert over is not None and (over.sign, over.num_seeds) == (1, 3)
    assert macro_interval(None) is None
