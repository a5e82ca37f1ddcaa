"""Every setting of rlcas: its name, type, default and meaning, declared in this package and nowhere else.

The settings of a run are one frozen `RunConfig`. Dotted flags (`--sampler.k 5`), YAML files and Ray Tune use the same
keys. The text under a field is its help. Presets, which override these defaults, are in `rlcas/settings/presets.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar, cast

from rlcas.config.classifier import ClassifierConfig
from rlcas.config.cluster import ClusterConfig
from rlcas.config.compare import CompareConfig
from rlcas.config.data import DatasetConfig, PhantomConfig, ShotsConfig
from rlcas.config.method import CbFocalConfig, MethodConfig
from rlcas.config.sampler import AGENT_DEFAULTS, DOSING, POPULATION, REWARD_DEFAULTS, SamplerConfig
from rlcas.config.sweep import SweepConfig
from rlcas.config.synth import (
    IMAGE_START_DEFAULTS,
    AutoencoderConfig,
    DenoiserConfig,
    FilterConfig,
    GenerationConfig,
    MgdmConfig,
    ScoringConfig,
    SkinSdmConfig,
    SynthConfig,
)
from rlcas.config.values import Count, Settings

__all__ = [
    "AGENT_DEFAULTS",
    "DOSING",
    "IMAGE_START_DEFAULTS",
    "POPULATION",
    "REWARD_DEFAULTS",
    "AutoencoderConfig",
    "CbFocalConfig",
    "ClassifierConfig",
    "ClusterConfig",
    "CompareConfig",
    "CompareRunConfig",
    "DatasetConfig",
    "DenoiserConfig",
    "FileConfig",
    "FilterConfig",
    "GenerationConfig",
    "MethodConfig",
    "MgdmConfig",
    "Part",
    "PhantomConfig",
    "RunConfig",
    "SamplerConfig",
    "ScoringConfig",
    "Settings",
    "ShotsConfig",
    "SkinSdmConfig",
    "SweepConfig",
    "SweepRunConfig",
    "SynthConfig",
    "only",
]


Part = TypeVar("Part", bound="RunConfig")


class RunConfig(Settings):
    """The settings of a whole run: both phases on one data set."""

    data: str = "phantom"
    """A data set's name (phantom, breastmnist, breastmnist_64, …), or npz:PATH, folder:PATH, csv:PATH; PATH may be an
    address (s3://, gs://, …), which is downloaded once."""
    preset: Literal["quick", "paper", "best"] = "best"
    """quick: minutes on 2 cores; paper: the paper's values; best: the best that we found."""
    out: Path | None = None
    """The run's folder, or an address to which it is uploaded after every checkpoint.
    None: runs/<data>-<preset>-<seed>."""
    pool: str | None = None
    """A pool of synthetic images to use instead of training the synthesiser: DIR, or folder:PATH with one folder for
    each class; either may be an address."""
    seed: Count = 0
    """The seed from which every random draw of the run is derived."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the synthesiser and evaluation run; episodes run where Ray puts them."""
    dataset: DatasetConfig = DatasetConfig()
    shots: ShotsConfig = ShotsConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    method: MethodConfig = MethodConfig()
    sampler: SamplerConfig = SamplerConfig()
    synth: SynthConfig = SynthConfig()
    cluster: ClusterConfig = ClusterConfig()


class SweepRunConfig(RunConfig):
    """The settings of `rlcas sweep`: those of a run, and which of them are swept."""

    sweep: SweepConfig = SweepConfig()

    @property
    def run(self) -> RunConfig:
        """Return the settings that the trials share, as those of a run."""
        return only(RunConfig, self)


class CompareRunConfig(RunConfig):
    """The settings of `rlcas compare`: those of a run, which all rows share, and which rows there are."""

    compare: CompareConfig = CompareConfig()

    @property
    def run(self) -> RunConfig:
        """Return the settings that the rows share, as those of a run."""
        return only(RunConfig, self)


class FileConfig(SweepRunConfig, CompareRunConfig):
    """Everything that a settings file may hold, so that one file serves every command."""


def only(model: type[Part], config: RunConfig) -> Part:
    """Return the settings of `config` that `model` has."""
    # Not validated again: the values come from validated settings.
    return cast("Part", model.model_construct(**{name: getattr(config, name) for name in model.model_fields}))
