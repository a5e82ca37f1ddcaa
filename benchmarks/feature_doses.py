"""Do doses found in feature space help images that no search has seen? Before any agent trains a network.

Three networks are trained on real images, each without a third of them (`rlcas.training.out_of_fold`). Their heads are
trained anew under doses of a pool, and measured on the test images by the mean class's log-likelihood and by macro AUC
(of the mean probability of the three), minus the same without synthetic images:

- `uniform`: the same count of every class, of 1, 2, 4, 8 the best on the held-out images (0 where none is better).
- `a_update`: what `rlcas.training.feature_search` finds on the held-out images.
- `oracle`: what it finds with the test images in their place: more than any signal could give.

The pools: `repeats`, the fold's own training images again, and `noise`, of pixels that are drawn evenly, where every
dose of `a_update` should be 0. `--keep FILE` holds finished cells, and a second call continues.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import emit, parser

from rlcas import settings
from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig
from rlcas.data import load, load_test
from rlcas.metrics import macro_auc
from rlcas.seeding import rng_for
from rlcas.storage.atomic import write_text
from rlcas.training.feature_search import FoundDose, search_doses
from rlcas.training.feature_space import FeatureSpace, with_bias
from rlcas.training.out_of_fold import Fold, FoldNetwork, PoolOf, out_of_fold, train_folds
from rlcas.types import Float64, Int64, TrainingData, Uint8

UNIFORM = (1, 2, 4, 8)
NOISE_IMAGES = 200


class NoiseImages:
    """Images of pixels that are drawn evenly, as a `SyntheticSource`."""

    def __init__(self, data: TrainingData, seed: int) -> None:
        self._data, self._seed = data, seed

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: images of each class."""
        return np.full(self._data.num_classes, NOISE_IMAGES)

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8."""
        shape = self._data.image_shape_CHW
        drawn = [
            rng_for(self._seed, "noise", class_id, int(i)).integers(0, 256, shape, np.uint8) for i in indices
        ]
        return np.array(drawn, np.uint8).reshape(-1, *shape)


def auc(folds: list[Fold], space: FeatureSpace, counts_C: Int64) -> float:
    """Return the macro AUC of the folds' mean probability of the test images."""
    p_NC = sum(
        (with_bias(fold.others.features_ND) @ head_EC).softmax(dim=1).numpy()
        for fold, head_EC in zip(folds, space.heads(counts_C), strict=True)
        if fold.others is not None
    )
    assert folds[0].others is not None
    return macro_auc(np.asarray(p_NC) / len(folds), folds[0].others.labels_N.numpy())


def mean_class(space: FeatureSpace, counts_C: Int64) -> float:
    """Return the mean class's log-likelihood under a composition."""
    return float(np.nanmean(space.by_class(space.log_likelihoods(counts_C))))


def cell(folds: list[Fold], config: RunConfig, class_counts_C: Int64, search_epochs: int) -> dict[str, float]:
    """Return the figures of one pool and seed.

    Args:
        folds: their features.
        config: the settings.
        class_counts_C: real training images of each class.
        search_epochs: steps of a search.
    """
    num_classes, batch_size = len(class_counts_C), config.classifier.batch_size
    own = FeatureSpace(folds, num_classes, batch_size)
    test = FeatureSpace(folds, num_classes, batch_size, measured_by="others")

    def found(space: FeatureSpace) -> FoundDose:
        return search_doses(space, config.sampler, class_counts_C, seed=config.seed, epochs=search_epochs)

    start = time.perf_counter()
    uniform_C = max(
        (np.full(num_classes, count) for count in (0, *UNIFORM)),
        key=functools.partial(mean_class, own),
    )
    between, dose = time.perf_counter(), found(own)
    searched = time.perf_counter() - between
    zeros_C = np.zeros(num_classes, np.int64)
    figures = {
        "uniform_count": float(uniform_C[0]),
        "a_update_total": float(dose.counts_C.sum()),
        "a_update_held_out": dose.gain,
        "a_update_held_out_error": dose.gain_error,
        "seconds": searched,
        "episodes": float(dose.num_episodes),
        "uniform_seconds": between - start,
    }
    figures |= {f"a_update_count_{c}": float(count) for c, count in enumerate(dose.counts_C)}
    rows = {"uniform": uniform_C, "a_update": dose.counts_C, "oracle": found(test).counts_C}
    for row, counts_C in rows.items():
        figures[f"{row}_log_likelihood"] = mean_class(test, counts_C) - mean_class(test, zeros_C)
        figures[f"{row}_auc"] = auc(folds, test, counts_C) - auc(folds, test, zeros_C)
    return figures


def pools_of(data: TrainingData, seed: int) -> dict[str, PoolOf]:
    """Return the pools by name."""
    return {
        "noise": lambda kept_N: NoiseImages(data, seed),
        "repeats": lambda kept_N: RealImages(data.train.take(kept_N)),
    }


def summary(cells: dict[str, dict[str, float]], pool: str) -> dict[str, float]:
    """Return the mean of each figure over the seeds of a pool, and the standard error of the gains."""
    rows = [figures for name, figures in cells.items() if name.startswith(f"{pool}_seed_")]
    table: dict[str, Float64] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    means = {name: float(values_S.mean()) for name, values_S in table.items()}
    errors = {
        f"{name}_error": float(values_S.std(ddof=1) / len(rows) ** 0.5)
        for name, values_S in table.items()
        if len(rows) > 1 and name.endswith(("_auc", "_log_likelihood"))
    }
    return means | errors


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", default="npz:bloodlt8.npz", help="as the setting `data`")
    arguments.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of folds and networks"
    )
    arguments.add_argument("--epochs", type=int, default=8, help="epochs of each fold's network")
    arguments.add_argument("--search-epochs", type=int, default=8, help="steps of a search, of 8 episodes each")
    arguments.add_argument("--images", type=int, help="phantoms in all splits, for --data phantom")
    arguments.add_argument("--keep", type=Path, help="JSON file of the finished cells")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    kept = options.keep is not None and options.keep.exists()
    cells: dict[str, dict[str, float]] = json.loads(options.keep.read_text("utf-8")) if kept else {}
    for seed in options.seeds:
        given = {
            "data": options.data,
            "classifier.width": "8",
            "classifier.batch_size": "64",
            "seed": str(seed),
        }
        if options.images:
            given["dataset.phantom.num_images"] = str(options.images)
        config = settings.resolve(given=given)
        data, (test, _) = load(config), load_test(config)
        networks: Callable[[], list[FoldNetwork]] = functools.cache(
            functools.partial(train_folds, data, config, epochs=options.epochs, device=torch.device("cpu"))
        )
        for pool, pool_of in pools_of(data, seed).items():
            if (name := f"{pool}_seed_{seed}") in cells:
                continue
            folds = out_of_fold(networks(), data.train, pool_of, seed=seed, others=test)
            counts_C = data.train.class_counts(data.num_classes)
            cells[name] = cell(folds, config, counts_C, options.search_epochs)
            if options.keep is not None:
                write_text(options.keep, json.dumps(cells, indent=1))
    means = {pool: summary(cells, pool) for pool in ("noise", "repeats")}
    emit(f"Doses in feature space, minus none, on test images of {options.data}", cells | means, options.json)


if __name__ == "__main__":
    main()
