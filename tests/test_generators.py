"""Every generator by the real commands: estimate, training, pool, score."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
import torch
from PIL import Image
from tiny_sd import write_tiny_sd

from rlcas.cli import main
from rlcas.config import RunConfig
from rlcas.runs.epoch_log import read_lines
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import write_json
from rlcas.types import TrainingData, Uint8
from synth.generators import GENERATORS, Generator
from synth.pool import SyntheticPool

pytestmark = [pytest.mark.medium]
TINY = {
    "ldm": {},
    "mgdm": {"synth.mgdm.max_steps": 4, "synth.mgdm.channels": "8,8", "synth.mgdm.ddim_steps": 3},
    "skin_sdm": {
        "synth.skin_sdm.pretrained": "sd",
        "synth.skin_sdm.prompt": "a {class}",
        "synth.skin_sdm.size_px": 16,
        "synth.skin_sdm.max_steps": 4,
        "synth.skin_sdm.steps": 2,
    },
}


class Average:
    """A generator from outside: the mean image of the class with noise."""

    def __init__(self, folder: Path) -> None:
        self.means_CCHW = np.load(folder / "means.npy")
        self.class_names = json.loads((folder / "names.json").read_text())
        self.image_shape_CHW = self.means_CCHW.shape[1:]
        self.origin = {"means": float(self.means_CCHW.mean())}

    def sample(self, class_id: int, generators: list[torch.Generator]) -> Uint8:
        noise = [torch.randn(self.image_shape_CHW, generator=generator).numpy() for generator in generators]
        return (self.means_CCHW[class_id] + 9.0 * np.stack(noise)).clip(0, 255).astype(np.uint8)


def train_average(data: TrainingData, config: RunConfig, folder: Path, **_: object) -> dict[str, float]:
    train = data.train
    folder.mkdir(parents=True, exist_ok=True)
    means = [train.images_NCHW[train.labels_N == c].mean(axis=0) for c in range(data.num_classes)]
    np.save(folder / "means.npy", np.stack(means))
    write_json(folder / "names.json", data.class_names)
    write_json(folder / "synthesiser.json", {})
    return {}


AVERAGE = Generator(train_average, lambda folder, config, device: Average(folder))


def words(home: Path, generator: str) -> list[str]:
    small_run.write_npz(home / "shapes.npz")
    if generator == "skin_sdm":
        write_tiny_sd(home / "sd")
    own = [text for key, value in TINY.get(generator, {}).items() for text in (f"--{key}", str(value))]
    return ["--data", "npz:shapes.npz", *small_run.flags(), "--synth.generator", generator, *own]


@pytest.mark.parametrize("generator", [*GENERATORS, f"{__name__}:AVERAGE"])
def test_a_generator_trains_fills_a_pool_and_is_scored(
    generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "train", *words(tmp_path, generator), "--out", "run"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["synth", "sample", "../run"]) == 0
    pool = SyntheticPool(tmp_path / "run/pool")
    assert pool.class_sizes_C.tolist() == [6, 6, 6] and pool.manifest["source"]["generator"] == generator
    assert main(["synth", "score", "../run"]) == 0
    figures = json.loads((tmp_path / "run/scores.json").read_text())
    assert (figures["sketch_skill"] is not None) == (generator in ("ldm", "mgdm"))
    assert np.isfinite(figures["fid"]) and "18 synthetic against 64 real" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("generator", "parts"),
    [
        ("ldm", ["autoencoder", "denoiser", "pool"]),
        ("mgdm", ["autoencoder", "denoiser", "classifier", "pool"]),
        ("skin_sdm", ["lora", "pool"]),
        (f"{__name__}:AVERAGE", []),
    ],
)
def test_a_dry_run_estimates_the_parts_of_the_generator(
    generator: str,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "train", *words(tmp_path, generator), "--dry-run"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    times = last.removeprefix("time, from a few steps on this machine: ").partition(";")[0]
    assert [part.rpartition(" ")[0].split(" ")[0] for part in times.split(", ")] == [
        *parts,
        "judge",
        "episodes",
    ]
    assert ("not estimated" in last) == (not parts)


def test_the_effect_of_mgdms_second_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "train", *words(tmp_path, "mgdm"), "--out", "run"]) == 0
    script = Path(__file__).parent.parent / "benchmarks" / "mgdm.py"
    command = [sys.executable, str(script), "run", "--json", "--images", "2", "--sheet", "sheet.png"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for name in small_run.CLASS_NAMES:
        assert figures[f"{name}_stage_1"]["moved"] == 0
        assert figures[f"{name}_scale_0"]["moved"] > 0 and 0 < figures[f"{name}_scale_0"]["own_label"] < 1
        assert (
            figures[f"{name}_stage_1"]["entropy"] < figures[f"{name}_scale_80"]["entropy"] <= np.log(3) + 1e-6
        )
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (2 * 24, 18 * 24)


def test_two_workers_train_a_lora_to_the_losses_of_one(tmp_path: Path) -> None:
    flags = words(tmp_path, "skin_sdm")
    curves = []
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2"])):
        command = [sys.executable, *launcher, "-m", "rlcas", "synth", "train", *flags, "--out", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        curves.append(read_lines(RunFolder(tmp_path / name).synthesis_log))
    for own, shared in zip(*curves, strict=True):
        assert own.pop("part") == shared.pop("part") == "lora"
        assert own == pytest.approx(shared, rel=1e-4)
