"""The Baseline with images of MGDM, a latent diffusion model disturbed towards the decision boundary."""

from __future__ import annotations

from rlcas.methods.method import MIX_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

MGDM = Method(
    title="MGDM",
    source="Luo et al. 2024",
    pool="mgdm",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
