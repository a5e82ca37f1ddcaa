"""A run's folder with a classifier whose weights are drawn, so that nothing need be trained."""

from __future__ import annotations

from pathlib import Path

import torch

from rlcas import settings
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import RunConfig
from rlcas.data import write_record
from rlcas.runs.folder import RunFolder
from rlcas.training.saved_classifier import save_classifier, untrained
from rlcas.types import TrainingData


def save_run(folder: Path, data: TrainingData, config: RunConfig, *, seed: int = 0) -> Path:
    """Write settings and classifier of a run on `data`; its probabilities differ from image to image."""
    meta = ClassifierMeta.of(data, config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = untrained(meta)
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.2)
    folder.mkdir(parents=True, exist_ok=True)
    settings.save(config, folder)
    save_classifier(folder, model.state_dict(), meta)
    if data.record is not None:
        write_record(data.record, RunFolder(folder).split)
    return folder
