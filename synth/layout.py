"""Names in the folder of a trained generator, which are all that most of the code needs to know of one."""

from __future__ import annotations

import shutil

FIGURES_FILE = "synthesiser.json"
"""Written last: it makes the others count."""
CHECKPOINTS_FOLDER = "training"
PIPELINE_FOLDER = "pipeline"
"""The diffusers pipeline of a synthesiser."""
LDM_FOLDER = "ldm"
"""MGDM's first stage, whole."""
LEFT_BY_A_KILL = shutil.ignore_patterns(CHECKPOINTS_FOLDER, ".*")
"""What a copy of a trained generator leaves out."""
