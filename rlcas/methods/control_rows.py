"""Controls, each without one part of RL-CAS: rows that declare settings and nothing else."""

from __future__ import annotations

from rlcas.methods.method import (
    INITIAL_SEARCH,
    LEARNING_SEARCH,
    MIX_SEARCH,
    SAMPLER_SEARCH,
    SHARES_IN_TURN,
    WHOLE_EPISODES,
    Method,
    episode_passes,
    k_passes,
    with_agents,
)
from rlcas.methods.paper_rows import BASELINE

RLCAS_FROZEN = Method(
    title="RL-CAS, frozen policy",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **WHOLE_EPISODES, **with_agents("uniform")},
    search=SAMPLER_SEARCH,
    passes=episode_passes,
    control=True,
)
"""RL-CAS whose policy stays uniform: the best of K random walks, without learning."""

RLCAS_K1 = Method(
    title="RL-CAS, K = 1",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={
        **BASELINE.settings,
        **WHOLE_EPISODES,
        "sampler.k": 1,
        "sampler.reward": "cubic",
        "sampler.advantages": "baseline",
        "sampler.team_share": None,
    },
    search=LEARNING_SEARCH,
    control=True,
)
"""RL-CAS with one episode an epoch: the agents without the selection among episodes.

With one episode there is nothing to compare, so the agents learn from the paper's team reward over the baseline of
eq. 2, whatever their reward is in the other rows."""

RLCAS_STATE = Method(
    title="Ours, agents state",
    source="RL-CAS with agents of ours",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **WHOLE_EPISODES, **with_agents("state")},
    search={**SAMPLER_SEARCH, "sampler.lr": (0.05, 0.15, 0.5)},
    passes=episode_passes,
)
"""RL-CAS with agents that see the state of training and learn from their own class's signal."""

RLCAS_RESPONSE = Method(
    title="Ours, agents response",
    source="RL-CAS with agents of ours",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **WHOLE_EPISODES, **with_agents("response")},
    search={**SAMPLER_SEARCH, "sampler.exploration": (0.1, 0.2, 0.4)},
    passes=episode_passes,
)
"""RL-CAS with agents that fit how their class responds to synthetic images."""

RLCAS_DOSE = Method(
    title="Ours, shares in turn, agents dose",
    source="RL-CAS with episodes and agents of ours",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **SHARES_IN_TURN, **with_agents("dose")},
    search={"sampler.exploration": (0.25, 0.5, 1.0)},
)
"""RL-CAS at the Baseline's cost, with agents that show a class's images only where they are probably a benefit."""

RLCAS_DOSE_FROZEN = Method(
    title="Shares in turn, frozen dose",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**RLCAS_DOSE.settings, "sampler.lr": 0.0},
    search=RLCAS_DOSE.search,
    control=True,
)
"""The same perturbed compositions, around a dose that stays what it was at first."""

RLCAS_DOSE_PERMUTED = Method(
    title="Shares in turn, credit of another class",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **SHARES_IN_TURN, **with_agents("dose_permuted")},
    search=RLCAS_DOSE.search,
    control=True,
)
"""Agents dose that learn from the signals of the next class."""

RLCAS_DOSE_REPLAYED = Method(
    title="Shares in turn, doses of another seed",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings=RLCAS_DOSE.settings,
    search=RLCAS_DOSE.search,
    replays="rlcas_dose",
    control=True,
)
"""The compositions of `rlcas_dose` under another seed, without agents: what a schedule is worth that was not learnt in
this very run. Under the same seed it would be the same run, to the last bit."""

CONSTANT = Method(
    title="Constant composition, best of K",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={
        **BASELINE.settings,
        **WHOLE_EPISODES,
        **with_agents("constant"),
        "sampler.common_random_numbers": False,
    },
    search=INITIAL_SEARCH,
    passes=episode_passes,
    control=True,
)
"""K episodes an epoch under the initial composition, whose best becomes the incumbent: selection alone.

With one composition and one order of the images the K episodes would hardly differ, and there would be nothing to
select: here each draws its own order and augmentation of the real images."""

OVERSAMPLING = Method(
    title="Over-sampling",
    source="control of + SynSketch",
    pool="real",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
    control=True,
)
"""SynSketch with repeated real training images in place of synthetic ones."""

SYN_IMAGE = Method(
    title="+ images from real images",
    source="control of + SynSketch",
    pool="image",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
    control=True,
)
"""SynSketch with images that the synthesiser makes from real training images instead of from noise."""

PBT = Method(
    title="Population-based training",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **WHOLE_EPISODES, **with_agents("pbt")},
    search=SAMPLER_SEARCH,
    passes=episode_passes,
    control=True,
)
"""Population-based training of the composition in place of agents."""

BASELINE_EMA = Method(
    title="Baseline, EMA of weights",
    source="control of RL-CAS",
    settings={**BASELINE.settings, "classifier.ema_decay": 0.99},
    search={"classifier.ema_decay": (0.9, 0.99, 0.999)},
    control=True,
)
"""The Baseline whose weights are averaged over its last steps: what averaging gains without more passes."""

BASELINE_BEST_OF_K = Method(
    title="Baseline, best of K seeds",
    source="control of RL-CAS",
    engine="best_of_k",
    settings=BASELINE.settings,
    passes=k_passes,
    control=True,
)
"""The Baseline from K seeds, the best on validation images: RL-CAS's compute without RL."""
