"""The effect of the sketch loss, the loss of quality by sampling in 20 steps, and copies in the pool, on real images.

For each data set one autoencoder is trained, then for each seed the denoiser with and without the sketch loss, all else
equal. The pools have as many images per class as there are held-out real ones (validation and test) and are compared
with these. A cell is a data set, a seed and an arm; cells that are in `--out` are not run again.

`python benchmarks/synthesis_quality.py --data npz:FILE --out docs/synthesis_quality.json` adds cells;
without `--data` it prints the tables of docs/results/synthesis.md from the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from rlcas import data as datasets
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.devices import choose_device
from rlcas.evaluation.features import penultimate, pixels
from rlcas.seeding import seed_for
from rlcas.storage.atomic import write_json
from rlcas.training.baseline import train_baseline
from rlcas.training.saved_classifier import load_classifier
from rlcas.types import ImageSet, TrainingData
from synth.layout import PIPELINE_FOLDER
from synth.ldm import diffusion
from synth.ldm.pipeline import ClassConditionalLDMPipeline
from synth.ldm.sampler import load_pipeline
from synth.ldm.train import train_synthesiser
from synth.quality import distances
from synth.quality.memorisation import memorisation

ARMS = {"with_sketch": {}, "without_sketch": {"synth.denoiser.sketch_weight": "0"}}
FEW_STEPS, MANY_STEPS = 20, 250
OURS, DDIM, MANY = f"unipc_{FEW_STEPS}", f"ddim_{FEW_STEPS}", f"ddim_{MANY_STEPS}"
SEEDS_HEAD = [
    "| data | seed | `sketch_skill` | KID with sketch | without | DDIM 20 | DDIM 250 | copies | copies, real |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
]
DIFFERENCES_HEAD = ["| data | paired difference | seeds | mean | 95 % interval |", "|---|---|--:|--:|---|"]


def held_out_of(config: RunConfig, data: TrainingData, most: int) -> ImageSet:
    """Return validation and test images, which no synthesiser saw, at most `most` of each class."""
    test, _ = datasets.load_test(config)
    images = ImageSet(
        images_NCHW=np.concatenate([data.val.images_NCHW, test.images_NCHW]),
        labels_N=np.concatenate([data.val.labels_N, test.labels_N]),
    )
    chosen = [np.flatnonzero(images.labels_N == class_id)[:most] for class_id in range(data.num_classes)]
    return images.take(np.concatenate(chosen))


def drawn(
    pipeline: ClassConditionalLDMPipeline, counts_C: list[int], steps: int, config: RunConfig
) -> ImageSet:
    """Return `counts_C[c]` images of each class, from the seeds of a pool's images.

    Args:
        pipeline: the trained pipeline.
        counts_C: images of each class.
        steps: sampling steps.
        config: the run's settings.
    """
    generation, images = config.synth.generation, []
    for class_id, count in enumerate(counts_C):
        for first in range(0, count, generation.micro_batch):
            numbers = range(first, first + generation.micro_batch)
            seeds = [seed_for(config.seed, "synthetic-image", class_id, number) for number in numbers]
            (batch,) = pipeline(
                [class_id] * len(seeds),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                guidance_scale=generation.guidance,
                output_type="pt",
                return_dict=False,
            )
            images.append((batch * 255).round().to(torch.uint8).cpu().numpy()[: count - first])
    return ImageSet(images_NCHW=np.concatenate(images), labels_N=np.repeat(np.arange(len(counts_C)), counts_C))


class Evaluation:
    """Held-out real images, and the features in which synthetic images are compared with them."""

    def __init__(self, config: RunConfig, data: TrainingData, most: int) -> None:
        self._data, self.real = data, held_out_of(config, data, most)
        device = choose_device(config.device)
        with tempfile.TemporaryDirectory() as folder:
            train_baseline(Path(folder), data.train, data, config, config.sampler.epochs, device)
            judge = load_classifier(Path(folder), device)
        self.features = {"classifier": penultimate(lambda: judge), "pixels": pixels(lambda: judge)}
        self.counts_C = self.real.class_counts(data.num_classes).tolist()

    def figures(self, synthetic: ImageSet) -> dict[str, Any]:
        """Return distances to the held-out images in both features, and copies among the synthetic ones."""
        figures: dict[str, Any] = {"n": len(synthetic)}
        for name, features in self.features.items():
            synthetic_ND, real_MD = features(synthetic.images_NCHW), features(self.real.images_NCHW)
            figures[f"kid_{name}"] = distances.kernel_distance(synthetic_ND, real_MD)
            figures[f"fid_{name}"] = distances.frechet_distance(synthetic_ND, real_MD)
        train = self._data.train.images_NCHW
        features = self.features["classifier"]
        memory = memorisation(
            features(synthetic.images_NCHW),
            features(train),
            features(train[..., ::-1]),
            features(self.real.images_NCHW),
        )
        copies_N = memory.copies_N
        return {**figures, "copy_rate": copies_N.mean(), "held_out_copy_rate": memory.held_out_copy_rate}


def arm(
    folder: Path, config: RunConfig, data: TrainingData, evaluation: Evaluation, *, with_solvers: bool
) -> dict[str, Any]:
    """Train one arm and return its figures.

    Args:
        folder: for the synthesiser.
        config: the cell's settings.
        data: the data set.
        evaluation: held-out images and features.
        with_solvers: sample by the other solvers too.
    """
    device = choose_device(config.device)
    trained = train_synthesiser(data, config, folder, device=device, progress=False)
    pipeline = load_pipeline(folder / PIPELINE_FOLDER, device)
    figures = {
        "training": trained,
        OURS: evaluation.figures(drawn(pipeline, evaluation.counts_C, FEW_STEPS, config)),
    }
    if with_solvers:
        for name, solver, steps in ((DDIM, "ddim", FEW_STEPS), (MANY, "ddim", MANY_STEPS)):
            pipeline.scheduler = diffusion.SOLVERS[solver](config.synth.denoiser)
            figures[name] = evaluation.figures(drawn(pipeline, evaluation.counts_C, steps, config))
    return figures


def run_cells(args: argparse.Namespace) -> None:
    """Run the cells of one data set that are not in the file yet."""
    cells = read(args.out)
    config = config_of(args, seed=0)
    data = datasets.load(config)
    done = {(cell["data"], cell["seed"], cell["arm"]) for cell in cells}
    missing = [(seed, name) for seed in args.seeds for name in ARMS if (data.name, seed, name) not in done]
    if not missing:
        return
    evaluation = Evaluation(config, data, args.most)
    with tempfile.TemporaryDirectory() as scratch:
        vae = Path(scratch) / "vae"
        first = settings.override(config, {"synth.denoiser.max_steps": "1"})
        train_synthesiser(data, first, Path(scratch) / "first", device=choose_device("auto"), progress=False)
        (Path(scratch) / "first" / PIPELINE_FOLDER / "vae").rename(vae)
        for seed, name in missing:
            cell = settings.override(
                config, {"seed": str(seed), "synth.autoencoder.pretrained": str(vae), **ARMS[name]}
            )
            with_solvers = args.solvers and name == "with_sketch"
            figures = arm(Path(scratch) / f"{seed}-{name}", cell, data, evaluation, with_solvers=with_solvers)
            cells = [*read(args.out), {"data": data.name, "seed": seed, "arm": name, **figures}]
            write_json(args.out, sorted(cells, key=lambda c: (c["data"], c["seed"], c["arm"])))
            print(data.name, seed, name, figures[OURS], flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def tables(cells: list[dict[str, Any]]) -> str:
    """Return the cells as two Markdown tables: each seed, and paired differences over the seeds."""
    by_key = {(cell["data"], cell["seed"], cell["arm"]): cell for cell in cells}
    pairs = [
        (data, seed, by_key[data, seed, "with_sketch"], by_key[data, seed, "without_sketch"])
        for data, seed in dict.fromkeys((cell["data"], cell["seed"]) for cell in cells)
        if all((data, seed, name) in by_key for name in ARMS)
    ]
    seeds = [_row(data, seed, kid(own), kid(other), own) for data, seed, own, other in pairs]
    differences = []
    for data in dict.fromkeys(data for data, *_ in pairs):
        of_data = [(own, other) for name, _, own, other in pairs if name == data]
        gaps = {
            "KID with − without sketch": [kid(own) - kid(other) for own, other in of_data],
            "the same in pixels": [kid(own, "pixels") - kid(other, "pixels") for own, other in of_data],
            "KID of 20 steps − of 250": [kid(own) - kid(own, at=MANY) for own, _ in of_data if MANY in own],
            "KID of UniPC − of DDIM, 20 steps": [
                kid(own) - kid(own, at=DDIM) for own, _ in of_data if DDIM in own
            ],
        }
        differences += [_difference(data, name, values) for name, values in gaps.items() if len(values) > 1]
    return "\n".join([*SEEDS_HEAD, *seeds, "", *DIFFERENCES_HEAD, *differences])


def kid(cell: dict[str, Any], features: str = "classifier", at: str = OURS) -> float:
    return cell[at][f"kid_{features}"]


def _row(data: str, seed: int, own: float, other: float, cell: dict[str, Any]) -> str:
    solvers = " | ".join(f"{kid(cell, at=name):.4f}" if name in cell else "" for name in (DDIM, MANY))
    copies = f"{cell[OURS]['copy_rate']:.3f} | {cell[OURS]['held_out_copy_rate']:.3f}"
    skill = cell["training"]["sketch_skill"]
    return f"| {data} | {seed} | {skill:.3f} | {own:.4f} | {other:.4f} | {solvers} | {copies} |"


def _difference(data: str, name: str, gaps: list[float]) -> str:
    low, high = interval(gaps)
    return f"| {data} | {name} | {len(gaps)} | {statistics.mean(gaps):+.4f} | {low:+.4f} to {high:+.4f} |"


def interval(gaps: list[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of two or more paired differences."""
    spread = scipy.stats.t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
    return statistics.mean(gaps) - spread, statistics.mean(gaps) + spread


def config_of(args: argparse.Namespace, seed: int) -> RunConfig:
    given = {"data": args.data, "preset": "quick", "seed": str(seed)}
    return settings.resolve(given={**given, **dict(pair.split("=", 1) for pair in args.set)})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path("docs/synthesis_quality.json"))
    arguments.add_argument("--data", help="as --data of rlcas; without it, the tables of --out are printed")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--most", type=int, default=80, help="largest number of held-out images of a class")
    arguments.add_argument("--solvers", action="store_true", help="sample by 20 and 250 steps of DDIM too")
    arguments.add_argument(
        "--set", nargs="*", default=[], metavar="SETTING=VALUE", help="override preset quick"
    )
    args = arguments.parse_args()
    if args.data:
        run_cells(args)
    print(tables(read(args.out)))


if __name__ == "__main__":
    main()
