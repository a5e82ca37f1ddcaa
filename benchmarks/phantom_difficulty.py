"""How hard the phantoms are: a classifier with plain cross-entropy on a balanced and on the long-tailed draw.

Both draws have the same number of images, steps and the same classifier; the test images have the draw's class
frequencies. The committed run, `docs/phantom_difficulty.json`, is the output of
`python benchmarks/phantom_difficulty.py --json`: about 3 minutes a seed on one core.
"""

from __future__ import annotations

import numpy as np
import torch
from common import emit, parser

from rlcas.batches.sources import RealImages
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.classifiers.snapshot import to_state_dict
from rlcas.config import PhantomConfig, RunConfig
from rlcas.data import load, load_test
from rlcas.metrics import macro_recall, per_class_recall, shot_recalls
from rlcas.shots import shot_groups
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import Classifier, predict
from rlcas.training.trainer import ClassifierTrainer

CPU = torch.device("cpu")
DRAWS = {"balanced": 1.0, "long_tailed": PhantomConfig().imbalance}
SHOTS = {"many": (0, 1), "few": (6, 7)}
"""The paper's groups of its eight classes: two many-, four medium-, two few-shot."""


def settings(imbalance: float, seed: int, num_images: int, epochs: int) -> RunConfig:
    """Return the settings of a run.

    Args:
        imbalance: ratio of the largest to the smallest class.
        seed: the run's seed.
        num_images: phantoms in all splits.
        epochs: epochs of training.
    """
    return RunConfig.model_validate(
        {
            "seed": seed,
            "dataset": {"phantom": {"imbalance": imbalance, "num_images": num_images}},
            "shots": SHOTS,
            "classifier": {"width": 8, "batch_size": 64, "loss": "ce"},
            "sampler": {"epochs": epochs, "initial_count": 0},
        }
    )


def test_figures(config: RunConfig) -> dict[str, float]:
    data = load(config)
    trainer = ClassifierTrainer(data, config, pool=RealImages(data.train), device=CPU)
    best, _ = fit(trainer, np.zeros(data.num_classes, np.int64), config.sampler.epochs)
    trainer.model.load_state_dict(to_state_dict(best.arrays, trainer.model))
    test, _ = load_test(config)
    classifier = Classifier(trainer.model, ClassifierMeta.of(data, config), CPU)
    p_NC = predict(classifier, test.images_NCHW)
    groups = shot_groups(config.shots, data.train.class_counts(data.num_classes), None)
    recall_C = per_class_recall(p_NC, test.labels_N)
    by_class = {f"recall_{c}": float(recall) for c, recall in enumerate(recall_C)}
    return {"macro_recall": macro_recall(p_NC, test.labels_N), **shot_recalls(recall_C, groups), **by_class}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--images", type=int, default=PhantomConfig().num_images)
    arguments.add_argument("--epochs", type=int, default=15)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    results = {
        f"{draw}_seed_{seed}": test_figures(settings(imbalance, seed, options.images, options.epochs))
        for seed in options.seeds
        for draw, imbalance in DRAWS.items()
    }
    emit("Phantoms: test recall with plain cross-entropy", results, options.json)


if __name__ == "__main__":
    main()
