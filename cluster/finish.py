"""The end of a run: test figures, the pool's figures, the gallery, metrics.json and the report."""

from __future__ import annotations

import importlib.metadata

import torch

from cluster.stages import stage, timings
from rlcas import data as datasets
from rlcas.config import RunConfig
from rlcas.evaluate import evaluate
from rlcas.files import write_json
from rlcas.report import write_report
from rlcas.rundir import RunFolder
from rlcas.types import SyntheticSource, TrainingData

GALLERY_IMAGES = 6
GALLERY_FILE = "gallery.npz"
POOL_ONLY_FOLDER = "pool_only"
SHOWN_FIGURES = ("acc", "f1", "recall", "precision", "auc", "many", "medium", "few", "ece")
VERSIONS_OF = ("rlcas", "torch", "torchvision", "timm", "diffusers", "ray", "gymnasium", "numpy")


def finish(
    folder: RunFolder, config: RunConfig, data: TrainingData, pool: SyntheticSource, device: torch.device
) -> None:
    """Write metrics.json and the report of a run whose classifier is trained."""
    with stage(folder, "Reading the test images", "test"):
        test, _ = datasets.load_test(config)
        figures = evaluate(folder.path, test, config.shots, device)
    with stage(folder, "Judging the pool", "pool_figures"):
        synthesis = pool_figures(folder, config, data, pool, test, device)
    write_gallery(folder, config, data, pool)
    per_patient = figures.pop("per_patient", None)
    write_json(
        folder.metrics,
        {
            "test": figures,
            **({"test_per_patient": per_patient} if per_patient else {}),
            "synthesis": synthesis,
            "seconds": timings(folder),
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        },
    )
    write_report(folder.path)
