"""Rows of the paper's tables that declare a loss, a pool or settings, and otherwise train as the Baseline."""

from __future__ import annotations

from rlcas.methods.method import LEARNING_SEARCH, MIX_SEARCH, WHOLE_EPISODES, Method, episode_passes

BASELINE = Method(title="Baseline", source="Ren et al. 2020", settings={"classifier.loss": "balanced_softmax"})
"""The Baseline of the paper: a plain classifier under Balanced Softmax."""

CE = Method(title="Cross-entropy", source="", settings={"classifier.loss": "ce"})
"""Plain cross-entropy, independent of the class sizes."""

MGDM = Method(
    title="MGDM",
    source="Luo et al. 2024",
    pool="mgdm",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
"""The Baseline with images of MGDM, a latent diffusion model disturbed towards the decision boundary."""

SKIN_SDM = Method(
    title="Skin-SDM",
    source="Patcharapimpisut and Khanarsa 2024",
    pool="skin_sdm",
    needs="synth.skin_sdm.pretrained",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
"""The Baseline with images of Skin-SDM, Stable Diffusion with LoRA."""

SYN_CLASS = Method(
    title="+ SynClass",
    source="the paper, Table 2",
    pool="class",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
"""The Baseline with images of the synthesiser without its sketch branch, under a constant composition."""

SYN_SKETCH = Method(
    title="+ SynSketch",
    source="the paper, Table 2",
    pool="sketch",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
"""The Baseline with images of the sketch-supervised synthesiser, under a constant composition."""

SYN_CLASS_RESAMPLING = Method(
    title="+ SynClass + Re-sampling",
    source="Yang et al. 2023",
    pool="class",
    select="freemask",
    settings=BASELINE.settings,
    search={**MIX_SEARCH, "method.freemask.tolerance": (1.1, 1.25, 1.5)},
)
"""SynClass after FreeMask's filter and re-sampling by hardness, adapted to classification."""

SYN_CLASS_RLCAS = Method(
    title="+ SynClass + RL-CAS",
    source="the paper, Table 2",
    engine="episodes",
    pool="class",
    settings={**BASELINE.settings, **WHOLE_EPISODES},
    search=LEARNING_SEARCH,
    passes=episode_passes,
)
"""RL-CAS over images of the synthesiser without its sketch branch."""

RLCAS_ROW = Method(
    title="Ours",
    source="Chen et al. 2025",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **WHOLE_EPISODES},
    search=LEARNING_SEARCH,
    passes=episode_passes,
)
"""RL-CAS over images of the sketch-supervised synthesiser: both phases of the paper."""
