"""A method under the agents, by the real command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
import torch

from rlcas.methods.proco import ProbabilisticContrast
from rlcas.runs import epoch_log
from rlcas.training.saved_classifier import load_classifier


@pytest.mark.medium
def test_agents_choose_the_composition_for_any_method(tmp_path: Path) -> None:
    from PIL import Image

    with np.load(small_run.write_npz(tmp_path / "shapes.npz", seed=1)) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"].ravel()
    for label in range(3):
        folder = tmp_path / "own" / str(label)
        folder.mkdir(parents=True)
        for i, image in enumerate(images[labels == label][:5]):
            Image.fromarray(255 - image).save(folder / f"{i}.png")
    words = [
        "--classifier.method",
        "proco",
        "--method.proco.alpha",
        "0.5",
        "--cluster.episode_runner",
        "in_process",
    ]
    command = [
        *(
            sys.executable,
            "-m",
            "rlcas",
            "train",
            "--data",
            "npz:shapes.npz",
            "--pool",
            "folder:own",
            "--out",
            "r",
        ),
        *small_run.flags(),
        *words,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(epoch_log.read_epochs(tmp_path / "r")) == 2
    model = load_classifier(tmp_path / "r", torch.device("cpu")).model
    assert isinstance(model, ProbabilisticContrast) and model.settings.alpha == 0.5
