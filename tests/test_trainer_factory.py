"""The trainer of a run, as each node builds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from test_judging import new_images, write_pool
from tiny import tiny_config, tiny_data

from cluster.episodes.trainer_factory import build_trainer
from rlcas.config import SamplerConfig
from rlcas.data.prepared import prepare
from rlcas.errors import UserError
from rlcas.types import EpisodeTrainer


@dataclass(frozen=True)
class FolderHere:
    """A folder that this node reaches itself, without Ray."""

    path: Path

    def here(self) -> Path:
        return self.path


def built(folder: Path, episode_runner: str, sampler: SamplerConfig) -> EpisodeTrainer:
    prepare(tiny_data(), folder / "prepared")
    write_pool(folder / "pool", [new_images(class_id, 3) for class_id in range(3)])
    config = tiny_config(cluster={"episode_runner": episode_runner}, device="cuda")
    pool = FolderHere(folder / "pool")
    return build_trainer(config, FolderHere(folder / "prepared"), pool, pool, sampler)


def test_the_calling_process_trains_on_the_device_of_the_settings_and_an_actor_on_what_ray_assigned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device 'cuda' is not available: torch finds no GPU"):
        built(tmp_path / "in_process", "in_process", SamplerConfig())
    assert built(tmp_path / "actors", "actors", SamplerConfig()).device == torch.device("cpu")


def test_the_trainer_has_the_sampler_that_it_is_called_with(tmp_path: Path) -> None:
    sampler = SamplerConfig(prior="effective")
    assert built(tmp_path, "actors", sampler).config.sampler == sampler
