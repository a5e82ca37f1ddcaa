"""The parts of a run that no command shows alone: checks, features, the pool's images, the estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_run
import torch
from tiny import tiny_config, tiny_data

from cluster.pools.make import images_per_class
from cluster.pools.stored import pool_folder
from cluster.runs.checks import check_settings
from rlcas import cli, settings
from rlcas.batches.sources import RealImages, all_images
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.errors import UserError
from rlcas.evaluation.features import penultimate
from rlcas.runs.folder import RunFolder
from rlcas.runs.stages import stage, timings
from rlcas.training.baseline import train_baseline
from rlcas.training.saved_classifier import Classifier, predict, untrained

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"synth.generator": "os:path"},
            r"^synth\.generator 'os:path' is not a synth\.generators\.Generator: name one$",
        ),
        (
            {"synth.sketch": "os:getcwd"},
            r"^synth\.sketch 'os:getcwd' gives no extractor: name a factory of one$",
        ),
        ({"classifier.loss": "x"}, r"^classifier\.loss 'x' is unknown: use one of balanced_softmax, "),
        (
            {"classifier.backbone": "resnet81"},
            r"^classifier\.backbone 'resnet81' is unknown: use a timm model name",
        ),
        (
            {"classifier.backbone": "vit_tiny_patch16_224"},
            r"^classifier\.width 16 is for timm's ResNets, not for 'vit_\w+': set --classifier\.width none, also where",
        ),
        ({"classifier.pretrained": "true"}, r"^classifier\.width 16 has no pretrained weights: set"),
        (
            {"sampler.metric": "x"},
            r"^sampler\.metric 'x' is unknown: use one of acc, auc, average_precision, f1",
        ),
        ({"sampler.reward": "x"}, r"^sampler\.reward 'x' is unknown: use one of cubic, linear"),
        (
            {"synth.generation.solver": "x"},
            r"^synth\.generation\.solver 'x' is unknown: use one of ddim, unipc",
        ),
        ({"sampler.agents": "x"}, r"^sampler\.agents 'x' is unknown: use one of constant, dose"),
        (
            {"sampler.observation": "composition,x"},
            r"^sampler\.observation 'x' is unknown: use one of composition",
        ),
        (
            {"synth.sketch": "x"},
            r"^synth\.sketch 'x' is unknown: use one of pidinet, ratio_of_averages, scharr",
        ),
        (
            {"preset": "paper"},
            r"^preset paper needs weights that are not given: a pretrained autoencoder of factor 8 "
            r"\(--synth\.autoencoder\.pretrained, .*\), and the checkpoint of the pidinet sketches "
            r"\(--synth\.sketch_weights, table5_pidinet\.pth from github\.com/hellozhuo/pidinet",
        ),
        (
            {"preset": "paper", "synth.autoencoder.pretrained": "vae"},
            r"^preset paper needs weights that are not given: the checkpoint of the pidinet sketches",
        ),
        (
            {"preset": "paper", "synth.sketch_weights": "table5_pidinet.pth"},
            r"^preset paper needs weights that are not given: a pretrained autoencoder of factor 8 \([^)]*\)$",
        ),
        (
            {"synth.sketch": "pidinet"},
            r"^sketch pidinet needs its checkpoint, which is not downloaded: get table5_pidinet\.pth from",
        ),
        (
            {"synth.sketch_weights": "table5_pidinet.pth"},
            r"^synth\.sketch_weights is .*table5_pidinet\.pth, but the sketch 'ratio_of_averages' takes none",
        ),
    ],
)
def test_every_name_is_looked_up_before_anything_starts(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(settings.resolve(given={"preset": "quick", **given}))


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--sampler.metric", "auc"),
        ("run", "--sampler.metric", "auc", "--dry-run"),
        ("compare", "--methods", "ce", "--sampler.metric", "auc"),
        ("compare", "--methods", "ce", "--sampler.metric", "auc", "--dry-run"),
        ("sweep", "--over", "sampler.metric=f1,auc"),
        ("sweep", "--over", "sampler.metric=f1,auc", "--dry-run"),
        ("sweep", "--sweep.metric", "auc", "--dry-run"),
    ],
)
def test_a_metric_that_the_validation_images_cannot_have_is_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with np.load(small_run.write_npz(tmp_path / "shapes.npz")) as arrays:
        one_class = arrays["val_labels"][:, 0] == 1
        changed = {name: arrays[name][one_class] for name in ("val_images", "val_labels")}
        np.savez(tmp_path / "shapes.npz", **{**arrays, **changed})
    assert cli.main([*words, "--data", "npz:shapes.npz", "--preset", "quick"]) == 2
    error = capsys.readouterr().err
    setting = "sweep.metric" if "--sweep.metric" in words else "sampler.metric"
    assert (
        f"{setting} 'auc' is not defined on the 4 validation images, which are all of class 'bar': set {setting} to f1 "
        "or recall or precision or acc, or add validation images of the other classes\n"
    ) in error
    assert ("sweep.over sampler.metric=auc: " in error) == ("--over" in words)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.npz"]


@pytest.mark.parametrize("preset", ["quick", "best"])
def test_the_presets_pass_the_checks(preset: str) -> None:
    check_settings(settings.resolve(given={"preset": preset}))


def test_features_are_what_the_last_layer_is_given() -> None:
    data, config = tiny_data(), tiny_config()
    meta = ClassifierMeta.of(data, config)
    classifier = Classifier(untrained(meta), meta, CPU)
    extractor = penultimate(lambda: classifier)
    assert extractor.described == "penultimate features of the Baseline's resnet18 of width 8"
    features_ND = extractor(data.val.images_NCHW)
    fc = classifier.model.classifier.fc
    logits = torch.from_numpy(features_ND) @ fc.weight.T + fc.bias
    np.testing.assert_allclose(
        logits.softmax(1).detach().numpy(), predict(classifier, data.val.images_NCHW), atol=1e-5
    )


def test_a_classifier_without_a_linear_layer_has_no_features() -> None:
    data, config = tiny_data(), tiny_config()
    meta = ClassifierMeta.of(data, config)
    with pytest.raises(UserError, match=r"has no linear layer to take features from: use another backbone, or"):
        penultimate(lambda: Classifier(torch.nn.Conv2d(1, 1, 1), meta, CPU))


def test_all_images_of_a_pool_come_with_their_class() -> None:
    data = tiny_data()
    images = all_images(RealImages(data.train))
    assert (np.diff(images.labels_N) >= 0).all()
    np.testing.assert_array_equal(
        images.class_counts(data.num_classes), data.train.class_counts(data.num_classes)
    )
    first = data.train.images_NCHW[data.train.labels_N == 0]
    np.testing.assert_array_equal(images.images_NCHW[: len(first)], first)


def test_a_classifier_learns_from_a_good_pool_alone(tmp_path: Path) -> None:
    """The training images themselves are as good a pool as can be."""
    from rlcas.evaluation.evaluate import evaluate

    data, config = tiny_data(), tiny_config()
    train_baseline(tmp_path, all_images(RealImages(data.train)), data, config, 10, CPU)
    figures = evaluate(tmp_path, data.val, config.shots, CPU)
    assert figures["intervals"]["recall"][0] > 1 / data.num_classes


def test_the_pool_follows_the_class_sizes_within_bounds() -> None:
    counts_C = np.array([3, 300, 3000])
    config = settings.of({})
    assert images_per_class(config, counts_C) == [50, 300, 1000]
    assert images_per_class(settings.of({"synth.generation.per_class": 7}), counts_C) == [7, 7, 7]


def test_a_pool_is_named_by_itself_or_by_its_run(tmp_path: Path) -> None:
    assert pool_folder(tmp_path) == tmp_path
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/manifest.json").touch()
    assert pool_folder(tmp_path) == tmp_path / "pool"


def test_a_stages_seconds_add_up_over_sessions_and_a_failed_one_adds_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(2):
        with stage(folder, "Doing", "doing"):
            pass
    assert set(timings(folder)) == {"doing"}
    with pytest.raises(RuntimeError, match="stop"), stage(folder, "Failing", "failing"):
        raise RuntimeError("stop")
    assert set(timings(folder)) == {"doing"}


def test_a_dry_run_shows_settings_demand_and_time_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from small_run import flags, write_npz

    from rlcas.cli import main

    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "shapes.npz")
    assert main(["run", "--data", "npz:shapes.npz", *flags(), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for words in (
        "  k: 2\n",
        "demand: K=2 episodes x ",
        "memory: ",
        "disk: ",
        "time, from a few steps on this",
        ", judge ",
    ):
        assert words in text
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.npz"]
