"""What `--dry-run` measures before it tells the time."""

from __future__ import annotations

import numpy as np

from cluster.runs.dry_run import seconds_per_image
from rlcas.config import RunConfig
from rlcas.types import ImageSet, TrainingData


def test_a_rare_class_that_the_measured_images_lack_stops_no_estimate() -> None:
    labels_N = np.array([0] * 60 + [1] + [2] * 39)
    images_NCHW = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), dtype=np.uint8)
    images = ImageSet(images_NCHW=images_NCHW, labels_N=labels_N)
    data = TrainingData(name="long", class_names=["a", "b", "c"], train=images, val=images)
    config = RunConfig.model_validate(
        {
            "classifier": {"width": 8, "batch_size": 4, "loss": "balanced_softmax"},
            "cluster": {"threads_per_episode": 1},
        }
    )
    assert 0 < seconds_per_image(config, data) < float("inf")
