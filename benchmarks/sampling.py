"""Filling a pool against the bare UNet forwards and VAE decodes of the same number of images.

share_of_floor is the bare time over fill_pool's: it shows the cost of loading the pipeline, the solver's arithmetic,
guidance, seeds, shards, hashes and the manifest in addition to the two networks. Steps, guidance, micro-batch and
threads are those of the settings; in a larger pool, loading would be a smaller share.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from common import emit, interleaved_medians, noise, parser

from rlcas.config import RunConfig
from rlcas.devices import torch_threads
from rlcas.settings.presets import PRESETS
from rlcas.types import TrainingData
from synth.generate import fill_pool
from synth.layout import PIPELINE_FOLDER
from synth.ldm.sampler import load_pipeline
from synth.ldm.train import train_synthesiser

NUM_CLASSES = 2
CASES = {  # side in pixels, settings, micro-batches a class
    "quick_28px": (28, PRESETS["quick"]["synth"], 6),
    "best_64px": (64, {}, 1),
}


def untrained(folder: Path, side_px: int, synth: dict, device: torch.device) -> RunConfig:
    """Save a synthesiser of one training step to `folder`; return its settings.

    Args:
        folder: where to save.
        side_px: side of its images.
        synth: settings of the group `synth`.
        device: where to train.
    """
    groups = {name: {**synth.get(name, {}), "max_steps": 1} for name in ("autoencoder", "denoiser")}
    config = RunConfig(synth={**synth, **groups})
    images = noise(16, size_px=side_px, num_classes=NUM_CLASSES)
    data = TrainingData(name="noise", class_names=("a", "b"), train=images, val=images)
    train_synthesiser(data, config, folder, device=device, progress=False)
    return config


def bare_networks(
    pipeline_folder: Path, config: RunConfig, num_batches: int, device: torch.device
) -> Callable[[], None]:
    """Return a function that runs the UNet and VAE for that many micro-batches, on fixed inputs.

    Args:
        pipeline_folder: the saved pipeline.
        config: the run's settings.
        num_batches: micro-batches.
        device: where to run.
    """
    pipeline, generation = load_pipeline(pipeline_folder, device), config.synth.generation
    unet, copies = pipeline.unet, 1 if generation.guidance == 1 else 2
    shape = (generation.micro_batch, unet.config.in_channels, *unet.config.sample_size)
    latents = torch.randn(shape, device=device)
    batch = torch.cat([latents] * copies)
    labels = torch.zeros(len(batch), dtype=torch.long, device=device)

    @torch.no_grad()
    def sample() -> None:
        with torch_threads(generation.threads):
            for _ in range(num_batches):
                for timestep in range(generation.steps):
                    unet(batch, timestep, class_labels=labels)
                pipeline.vae.decode(latents)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return sample


def measured(
    folder: Path, side_px: int, synth: dict, num_batches: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """Return the figures of one case.

    Args:
        folder: for the case's files.
        side_px: side of the images.
        synth: settings of the group `synth`.
        num_batches: micro-batches of each class.
        repeats: repetitions.
        device: where to sample.
    """
    config = untrained(folder, side_px, synth, device)
    sizes = [num_batches * config.synth.generation.micro_batch] * NUM_CLASSES
    numbers = itertools.count()

    def ours() -> None:
        pool_folder = folder / f"pool-{next(numbers)}"
        fill_pool(folder, pool_folder, sizes, config, device=device, progress=False)

    bare = bare_networks(folder / PIPELINE_FOLDER, config, NUM_CLASSES * num_batches, device)
    seconds = interleaved_medians({"bare": bare, "ours": ours}, repeats)
    return {
        "share_of_floor": seconds["bare"] / seconds["ours"],
        "image_milliseconds": 1000 * seconds["ours"] / sum(sizes),
    }


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = arguments.parse_args()
    results = {}
    for case in args.cases:
        side_px, synth, num_batches = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            results[case] = measured(
                Path(folder), side_px, synth, num_batches, args.repeats, torch.device(args.device)
            )
    emit("Synthesiser: filling a pool against its bare networks", results, args.json)


if __name__ == "__main__":
    main()
