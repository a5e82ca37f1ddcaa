"""The Baseline with images of Skin-SDM, Stable Diffusion with LoRA."""

from __future__ import annotations

from rlcas.methods.method import MIX_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

SKIN_SDM = Method(
    title="Skin-SDM",
    source="Patcharapimpisut and Khanarsa 2024",
    pool="skin_sdm",
    needs="synth.skin_sdm.pretrained",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
