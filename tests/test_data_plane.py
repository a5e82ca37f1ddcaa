"""What is stored once per node, and what is transferred: images, incumbent, weights."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from tiny import CPU, tiny_config
from trivial import TrivialTrainer

from rlcas.batches.batch_maker import BatchMaker
from rlcas.batches.sources import RealImages
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.data.prepared import open_prepared, prepare
from rlcas.types import EpisodeTask, EpochResult, ImageSet, Incumbent, Int64, TrainingData

MB = 1 << 20
NUM_WEIGHTS = 2 * MB // 4


def large_data() -> TrainingData:
    """Return 48 MB of training images, few and large."""
    images_NCHW = np.zeros((48, 1, 1024, 1024), np.uint8)
    train = ImageSet(images_NCHW=images_NCHW, labels_N=np.arange(48) % 3)
    return TrainingData(name="large", class_names=("a", "b", "c"), train=train, val=train.take(np.arange(6)))


def private_bytes() -> int:
    """Return the private memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


class ReadingTrainer(TrivialTrainer):
    """Reads every real image as an epoch of training does, and reports what that and the incumbent cost."""

    def __init__(self, folder: Path, sampler: SamplerConfig) -> None:
        super().__init__(sampler, num_classes=3, num_weights=NUM_WEIGHTS)
        data = open_prepared(folder)
        self.before = private_bytes()
        self.maker = BatchMaker(data, RealImages(data.train), tiny_config(), CPU)

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        result = super().train_epoch(incumbent, counts_C, episode_index=episode_index)
        assert self.maker._images.sum() == 0
        costs = {
            "grown_mb": (private_bytes() - self.before) / MB,
            "copied": float(incumbent.arrays["float32"].flags.writeable),
        }
        return EpochResult(**{**vars_of(result), "metrics": {**result.metrics, **costs}})


def vars_of(result: EpochResult) -> dict[str, object]:
    return {name: getattr(result, name) for name in EpochResult.__slots__}


def test_a_batch_maker_reads_the_mapped_images_themselves(tmp_path: Path) -> None:
    prepare(large_data(), tmp_path)
    data = open_prepared(tmp_path)
    maker = BatchMaker(data, RealImages(data.train), tiny_config(), CPU)
    assert isinstance(data.train.images_NCHW, np.memmap)
    assert maker._images.data_ptr() == data.train.images_NCHW.ctypes.data
    assert maker._labels.data_ptr() == data.train.labels_N.ctypes.data
    assert maker._images.dtype == torch.uint8


@pytest.mark.medium
def test_k_actors_share_images_and_incumbent_and_only_the_winner_is_returned(
    ray_session, tmp_path: Path
) -> None:
    import test_data_plane

    from cluster.episodes.actor_runner import EpisodeActors

    ray.cloudpickle.register_pickle_by_value(test_data_plane)
    prepare(large_data(), tmp_path)
    runner = EpisodeActors(functools.partial(ReadingTrainer, tmp_path), SamplerConfig(k=3), ClusterConfig())
    try:
        incumbent = runner.initial(np.full(3, 2))
        tasks_K = [
            EpisodeTask(epoch=1, episode_index=j, actions_C=np.full(3, j), base_C=np.full(3, 2))
            for j in range(3)
        ]
        reports, trained = runner.train_epoch([incumbent] * 3, [[task] for task in tasks_K])
        assert [report.status for report in reports] == ["ok"] * 3, reports[0].traceback
        for report in reports:
            assert report.result.metrics["grown_mb"] < 16, "48 MB of images are mapped, not copied"
            assert report.result.metrics["copied"] == 0, "the incumbent is a view of Ray's object store"
        assert not runner.fetch(trained[1]).arrays["float32"].flags.writeable
    finally:
        runner.close()
