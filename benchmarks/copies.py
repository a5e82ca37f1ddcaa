"""How often the rules for copies find planted copies of training images, and real test images, which are not copies.

For each extractor the share of images that are taken for copies. Planted copies are training images unchanged,
mirrored, with noise (standard deviation 3 and 8 of 255), brighter by 10, and shifted by a pixel. `real_test` counts
near-duplicates of training images that the data set's own split has among its test images.

    python benchmarks/copies.py --data npz:breastmnist.npz npz:bloodlt8.npz
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import emit, parser

from rlcas import settings
from rlcas.config import PhantomConfig
from rlcas.data import load, load_test
from rlcas.evaluation.features import EXTRACTORS, build_extractor
from rlcas.seeding import rng_for
from rlcas.training.baseline import train_baseline
from rlcas.training.saved_classifier import load_classifier
from rlcas.types import TrainingData, Uint8
from synth.quality.memorisation import memorisation

CPU = torch.device("cpu")
MOST_PLANTED = 300


def planted(train_NCHW: Uint8) -> dict[str, Uint8]:
    rng = rng_for(0, "planted")
    chosen = rng.permutation(len(train_NCHW))[:MOST_PLANTED]
    pixels = train_NCHW[chosen].astype(np.float64)
    copies = {
        "exact": pixels,
        "mirrored": pixels[..., ::-1],
        "noise_3": pixels + rng.normal(0, 3, pixels.shape),
        "noise_8": pixels + rng.normal(0, 8, pixels.shape),
        "brighter_10": pixels + 10,
        "shifted_1_px": np.roll(pixels, 1, axis=-1),
    }
    return {name: copy.round().clip(0, 255).astype(np.uint8) for name, copy in copies.items()}


def shares(data: TrainingData, test_NCHW: Uint8, features: Callable[[Uint8], np.ndarray]) -> dict[str, float]:
    train = data.train.images_NCHW
    references = features(train), features(train[..., ::-1]), features(data.val.images_NCHW)
    found = {
        name: memorisation(features(images), *references)
        for name, images in {**planted(train), "real_test": test_NCHW}.items()
    }
    return {
        **{name: float(memory.copies_N.mean()) for name, memory in found.items()},
        "held_out_copy_rate": found["real_test"].held_out_copy_rate,
    }


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", nargs="+", default=["phantom"], help="as --data of rlcas run")
    arguments.add_argument("--epochs", type=int, default=10, help="epochs of the judge")
    arguments.add_argument("--images", type=int, default=PhantomConfig().num_images, help="of phantom")
    given = arguments.parse_args()
    results = {}
    for source in given.data:
        named = {"preset": "quick", "data": source, "dataset.phantom.num_images": str(given.images)}
        config = settings.resolve(given=named)
        data, (test, _) = load(config), load_test(config)
        with tempfile.TemporaryDirectory() as folder:
            train_baseline(Path(folder), data.train, data, config, given.epochs, CPU)
            judge = load_classifier(Path(folder), CPU)
        for name in EXTRACTORS:
            scoring = config.synth.scoring.model_copy(update={"extractor": name})
            features = build_extractor(scoring, lambda judge=judge: judge, CPU)
            results[f"{Path(source).stem}_{name}"] = shares(data, test.images_NCHW, features)
    emit("share taken for copies", results, given.json)


if __name__ == "__main__":
    main()
