"""The Baseline with images of MGDM, a latent diffusion model disturbed towards the decision boundary."""

from __future__ import annotations

from rlcas.methods.baseline import BASELINE
from rlcas.methods.method import MIX_SEARCH, Method

MGDM = Method(
    title="MGDM",
    source="Luo et al. 2024",
    pool="mgdm",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
