"""What every stage of a run works with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlcas.config import RunConfig
from rlcas.runs.folder import RunFolder
from rlcas.types import TrainingData


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run on its data, where it is computed."""

    folder: RunFolder
    config: RunConfig
    data: TrainingData
    device: torch.device
    """Of the synthesiser and of evaluation; episodes run where Ray puts them."""
