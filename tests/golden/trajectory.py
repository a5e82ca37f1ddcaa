"""A short real training through the engine, whose figures are recorded in trajectory.json.

Make the file again, after a change that is meant to move them: `python tests/golden/trajectory.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

from cluster import RLCASConfig
from cluster.runtime.connection import ensure_ray
from rlcas.jsonable import jsonable
from rlcas.storage.atomic import write_json

FILE = Path(__file__).with_suffix(".json")
NUM_EPOCHS = 3
HEADER = {
    "command": "python tests/golden/trajectory.py",
    "what": "ResNet-18 of width 8 on 150 images of tests/tiny.py, K=2, C=3, CPU, 1 thread an episode, seed 0",
    "compare": "ints exactly, floats to a relative 1e-3",
}


def trajectory(runner: str = "actors") -> list[dict[str, Any]]:
    """Train three epochs of two episodes and return the results of each, as JSON values."""
    config = tiny.tiny_config(sampler={"k": 2, "epochs": NUM_EPOCHS, "lr": 0.1})
    algorithm = (
        RLCASConfig()
        .training(**dict(config.sampler))
        .episodes(
            trainer_factory=tiny.tiny_factory(config, tiny.tiny_data(150)),
            num_classes=3,
            episode_runner=runner,
        )
        .debugging(seed=config.seed)
        .build_algo()
    )
    try:
        return [_result(algorithm.record) for _ in range(NUM_EPOCHS) if algorithm.train()]
    finally:
        algorithm.stop()


def _result(record: Any) -> dict[str, Any]:
    return jsonable(
        {
            "epoch": record.epoch,
            "winner": record.winner,
            "compositions": [report.counts_C for report in record.reports],
            "rewards": [report.reward for report in record.reports],
            "val_losses": [report.result.val_loss for report in record.reports],
            "baseline": record.baseline,
            "probabilities": record.probabilities_C3,
        }
    )


if __name__ == "__main__":
    ray.cloudpickle.register_pickle_by_value(tiny)
    ensure_ray(k=2)
    write_json(FILE, {**HEADER, "epochs": trajectory()})
