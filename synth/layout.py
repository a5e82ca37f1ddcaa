"""File names in the folder of a trained generator.

They are in a module of their own because most of the code needs no more than these, and importing a generator
imports diffusers, which takes seconds.
"""

from __future__ import annotations

import shutil

FIGURES_FILE = "synthesiser.json"
"""Written last: a folder without it holds an unfinished training."""
CHECKPOINTS_FOLDER = "training"
PIPELINE_FOLDER = "pipeline"
"""The diffusers pipeline of a synthesiser."""
LDM_FOLDER = "ldm"
"""MGDM's first stage: the folder of a complete latent diffusion model."""
IGNORE_UNFINISHED = shutil.ignore_patterns(CHECKPOINTS_FOLDER, ".*")
"""For `shutil.copytree` of a trained generator: skips checkpoints and the temporary files of killed processes."""
