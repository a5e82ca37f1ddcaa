"""Runs whose episodes are shares of an epoch, by commands: chosen, recorded, resumed; and on a pool of pure noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
import torch
from PIL import Image

from cluster.runs.first_dose import dose_to_start_from
from rlcas import cli, settings
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.runs.context import RunContext
from rlcas.runs.epoch_log import read_epochs
from rlcas.runs.folder import RunFolder

pytestmark = pytest.mark.medium

IN_TURN = {"sampler__episode": "auto", "sampler__epochs": 3}


def noise_pool(folder: Path, per_class: int = 12, size_px: int = 24) -> Path:
    """Write images of pure noise of every class."""
    rng = np.random.default_rng(0)
    for name in small_run.CLASS_NAMES:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (size_px, size_px), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    small_run.write_npz(tmp_path / "shapes.npz")
    noise_pool(tmp_path / "noise")
    return tmp_path


def train(out: str, pool: str = "folder:noise", **more: object) -> int:
    words = small_run.flags(**{**IN_TURN, **more})
    return cli.main(
        [
            "train",
            "--data",
            "npz:shapes.npz",
            "--pool",
            pool,
            *words,
            *small_run.IN_PROCESS,
            "--out",
            out,
        ]
    )


def test_auto_says_what_it_chose_and_the_folder_records_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("run") == 0
    shown = capsys.readouterr().out
    assert (
        "Episodes (sampler.episode auto): K=2 shares of an epoch in turn, each starts from what the one"
        in shown
    )
    config = settings.load(home / "run")
    assert (config.sampler.episode, config.sampler.handover) == ("share", "in_turn")
    lines = read_epochs(home / "run")
    assert [line["handover"] for line in lines] == ["in_turn"] * 3
    for line in lines:
        assert line["winner"] == 1
        assert line["incumbent"]["images"] == sum(line["images"])
        real = 64 + sum(line["synthetic_images"])
        assert line["incumbent"]["images"] == real, "one pass over the real images, as the Baseline's"


def test_a_dry_run_says_it_too_and_counts_one_pass(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for episode, described in (
        ("auto", "K=3 shares of an epoch in turn"),
        ("whole", "K=3 whole epochs on 3 workers"),
    ):
        # K = 3 is more than the two mini-batches from which the time is estimated.
        words = small_run.flags(sampler__episode=episode, sampler__k=3)
        assert cli.main(["run", "--data", "npz:shapes.npz", "--pool", "folder:noise", *words, "--dry-run"]) == 0
        assert f"episodes: {described}" in capsys.readouterr().out


def test_an_epoch_too_short_to_divide_is_refused_before_anything_is_made(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("run", sampler__k=5) == 2
    error = capsys.readouterr().err
    assert "sampler.k 5 episodes cannot divide the 4 mini-batches of an epoch: lower" in error
    assert error.count("\n") == 1 and not (home / "run").exists()


def test_a_dose_is_looked_for_once_and_a_pool_of_noise_has_none(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"sampler__agents": "dose", "sampler__fold_epochs": 4, "classifier__batch_size": 8}
    assert train("run", **own) == 0
    shown = capsys.readouterr().out
    assert "Looking for a dose in the features of 3 classifiers" in shown
    assert "dose to start from: none, as no benefit is probable" in shown
    found = json.loads((home / "run/dose.json").read_text())
    assert found["counts_C"] == [0, 0, 0] and len(found["benefit_probability_C"]) == 3
    assert json.loads((home / "run/timings.json").read_text())["dose_search"] > 0
    assert read_epochs(home / "run")[0]["base_composition"] == [0, 0, 0]
    (home / "run/dose.json").write_text(json.dumps({**found, "counts_C": [0, 2, 4]}))
    assert cli.main(["resume", "run", "--sampler.epochs", "4"]) == 0
    resumed = capsys.readouterr().out
    assert "Looking for" not in resumed and "dose to start from: bar 2, <b>cross</b> 4" in resumed
    # What the agents know since is in the checkpoint.
    assert read_epochs(home / "run")[3]["base_composition"] == [0, 0, 0]


def test_images_that_a_classifier_of_the_real_ones_does_not_recognise_are_never_shown(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run of a pool of noise is the one without images, bit for bit."""
    longer = {"sampler__epochs": 6, "classifier__batch_size": 8}
    assert train("run", sampler__agents="dose", **longer) == 0
    shown = capsys.readouterr().out
    assert "Looking for a dose by the images that are recognised" in shown
    assert "dose to start from: none, as no benefit is probable" in shown
    facts = json.loads((home / "run/dose.json").read_text())
    assert facts["counts_C"] == [0, 0, 0] and max(facts["benefit_probability_C"]) < 0.5
    assert not any(sum(line["synthetic_images"]) for line in read_epochs(home / "run"))
    without = {"sampler__agents": "constant", "sampler__initial_count": 0, "sampler__prior": "effective"}
    assert train("without", **without, **longer) == 0
    weights = [(home / out / "model.safetensors").read_bytes() for out in ("run", "without")]
    assert weights[0] == weights[1]


def test_images_that_it_recognises_are_shown_from_the_start(home: Path) -> None:
    """The pool is of other shapes of the same kinds, as if a synthesiser were perfect."""
    with np.load(small_run.write_npz(home / "others.npz", seed=1)) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"].ravel()
    for name in small_run.CLASS_NAMES:
        (home / "shapes" / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(home / "shapes" / small_run.CLASS_NAMES[label] / f"{number}.png")
    own = {
        "sampler__agents": "dose",
        "sampler__epochs": 8,
        "classifier__batch_size": 8,
        "sampler__max_count": 2,
    }
    assert train("run", **own, pool="folder:shapes") == 0
    facts = json.loads((home / "run/dose.json").read_text())
    probable = [probability > 0.8 for probability in facts["benefit_probability_C"]]
    assert any(probable) and not any(
        count for count, likely in zip(facts["counts_C"], probable, strict=True) if not likely
    )
    assert sum(facts["counts_C"]) == min(2, 2 * sum(probable)), "a quarter of the mini-batch's 8 images"
    first = read_epochs(home / "run")[0]
    assert first["base_composition"] == facts["counts_C"] and sum(first["synthetic_images"]) > 0
    assert sum(first["images"]) == 64, "they replace real ones"


def test_a_pool_of_real_images_is_not_searched(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = small_run.flags(sampler__agents="dose", sampler__fold_epochs=2)
    start = ["--synth.generation.start", "image"]
    assert cli.main(["run", "--data", "npz:shapes.npz", *words, *start, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert (
        "sampler.fold_epochs 2 holds out training images, but the pool's are made from them (synth.gen" in error
    )
    assert not (home / "run").exists()


def test_no_stage_searches_a_pool_of_real_images(tmp_path: Path) -> None:
    """Nor in a sweep or a comparison, which look for the dose of each trial or cell."""
    own = {"sampler": {"agents": "dose", "fold_epochs": 2}, "synth": {"generation": {"start": "image"}}}
    data: Any = None
    context = RunContext(RunFolder(tmp_path), settings.of(own), data, torch.device("cpu"))
    with pytest.raises(
        UserError, match=r"sampler.fold_epochs 2 holds out training images, but the pool's are made"
    ):
        dose_to_start_from(context, data)
    assert not (tmp_path / "dose.json").exists()


def test_an_interrupted_run_ends_with_the_bits_of_the_uninterrupted_one(home: Path) -> None:
    """Two epochs and a third later are the first two of three: the learning rate is that of three epochs."""
    # No first dose: the classifier that recognises images is trained for as many epochs as the run.
    dose = {"sampler__agents": "dose", "sampler__start_share": 0.0}
    own = {**dose, "classifier__lr_schedule": "constant", "sampler__real_last": 0.0}
    assert train("whole", **own) == 0
    assert train("parts", **{**own, "sampler__epochs": 2}) == 0
    assert cli.main(["resume", "parts", "--sampler.epochs", "3"]) == 0
    names = ("compositions", "actions", "metrics", "base_composition", "incumbent")
    for one, other in zip(read_epochs(home / "whole"), read_epochs(home / "parts"), strict=True):
        assert {name: one[name] for name in names} == {name: other[name] for name in names}


def figures_of(data: str, pool: str, seed: int, sampler: dict[str, object]) -> dict[str, float]:
    """Return the test figures of a run in this process."""
    import rlcas

    config = settings.resolve(
        given={
            **{key: str(value) for key, value in small_run.SETTINGS.items()},
            "data": data,
            "pool": pool,
            "seed": str(seed),
            "dataset.seed": "0",
            "classifier.batch_size": "8",
            "cluster.episode_runner": "in_process",
            "sampler.epochs": "8",
            "sampler.k": "3",
            "sampler.episode": "share",
            "out": f"run-{seed}-{sampler['sampler.agents']}",
            **{key: str(value) for key, value in sampler.items()},
        }
    )
    assert isinstance(config, RunConfig)
    return json.loads((Path(rlcas.train(config)) / "metrics.json").read_text())["test"]


SAFE = {
    "sampler.agents": "dose",
    "sampler.start_share": 0.0,
    "sampler.exploration": 0.25,
    "sampler.synthetic_weight": 0.3,
    "sampler.prior": "effective",
    "sampler.real_last": 0.375,
}
"""Perturbations of few classes, light in the loss, and real images alone at the end."""


def test_on_a_pool_of_noise_a_run_ends_where_one_without_images_ends(home: Path) -> None:
    """The images do harm: hardly a class keeps a dose, and the last epochs make up for what the exploration cost."""
    with np.load(home / "shapes.npz") as arrays:
        stored = dict(arrays)
    parts = [np.load(small_run.write_npz(home / f"{seed}.npz", seed=seed)) for seed in range(1, 7)]
    for name in ("test_images", "test_labels"):
        stored[name] = np.concatenate([part[name] for part in parts])
    np.savez(home / "tested.npz", **stored)
    only_dose = ("sampler.exploration", "sampler.start_share")
    without = {name: value for name, value in SAFE.items() if name not in only_dose}
    without |= {"sampler.agents": "constant", "sampler.initial_count": 0}
    differences = []
    for seed in range(3):
        own, other = (figures_of("npz:tested.npz", "folder:noise", seed, each) for each in (SAFE, without))
        differences.append([own[name] - other[name] for name in ("auc", "average_precision")])
        last = read_epochs(home / f"run-{seed}-dose")[-1]
        assert sum(last["base_composition"]) <= 2, "by chance a class may have kept a part of a step"
    assert np.mean(differences, axis=0).min() > -0.04, differences
