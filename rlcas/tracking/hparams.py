"""TensorBoard's HParams page: the settings and the results of a trial."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcas.settings.search_space import as_text
from rlcas.tracking.tensorboard import EVENTS_FOLDER

HPARAMS_FOLDER = "hparams"


def write_hparams(folder: Path, settings: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
    """Write a session of the HParams page below `folder`/tensorboard, replacing an earlier one.

    Args:
        folder: the trial's folder.
        settings: dotted setting -> value; numbers are written as numbers, everything else as text.
        metrics: name -> value, each a column `hparam/<name>`.
        step: number of epochs trained.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    path = folder / EVENTS_FOLDER / HPARAMS_FOLDER
    # A resumed trial would otherwise have two sessions on the page.
    shutil.rmtree(path, ignore_errors=True)
    figures = {f"hparam/{name}": value for name, value in metrics.items()}
    # torch's hparams would write True as 1 and leave None out, so both become text: hence not isinstance.
    values = {key: value if type(value) in (int, float) else as_text(value) for key, value in settings.items()}
    # SummaryWriter.add_hparams names a folder by the time, so it could not replace an earlier session.
    with SummaryWriter(str(path)) as writer:
        for summary in hparams(values, figures):
            writer.file_writer.add_summary(summary)
        for tag, value in figures.items():
            writer.add_scalar(tag, value, step)
