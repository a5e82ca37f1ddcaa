"""Filling a pool: image i of class c from its own seed, whatever else is sampled.

Micro-batch b of a class always holds images b·m .. b·m+m-1, whole even where fewer are asked for: so an image
has the same neighbours in the same batch shape in every run, and the same bytes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.registry import lookup
from rlcas.seeding import seed_for
from rlcas.types import Uint8
from synth.generators import GENERATORS, ImageSampler
from synth.pool import PoolWriter
from synth.progress import Reporter


def fill_pool(
    synth_folder: Path,
    pool_folder: Path,
    per_class_C: list[int],
    config: RunConfig,
    *,
    device: torch.device,
    progress: bool,
) -> None:
    """Sample `per_class_C[c]` images of each class c into a pool; shards that are already there are kept.

    Raises:
        UserError: there is no synthesiser in `synth_folder`, it has another number of classes, or
            `pool_folder` holds a pool of other weights or settings.
    """
    sampler = lookup(config.synth.generator, GENERATORS, "synth.generator").open(synth_folder, config, device)
    if len(per_class_C) != len(sampler.class_names):
        raise UserError(
            f"{synth_folder} makes {len(sampler.class_names)} classes, but {len(per_class_C)} are asked for: "
            "train a synthesiser on this data set"
        )
    generation = config.synth.generation
    writer = PoolWriter(
        pool_folder,
        class_names=sampler.class_names,
        image_shape_CHW=sampler.image_shape_CHW,
        shard_images=generation.shard_images,
        source={
            "generator": config.synth.generator,
            **sampler.origin,
            "seed": config.seed,
            "micro_batch": generation.micro_batch,
        },
    )
    missing = writer.missing(per_class_C)
    batches = sum(len(_micro_batches(span, generation.micro_batch)) for _, span in missing)
    with Reporter(progress=progress).part("sampling", batches) as report:
        done = iter(range(1, batches + 1))
        for class_id, span in missing:
            sampled = []
            for batch in _micro_batches(span, generation.micro_batch):
                sampled.append(
                    sample_micro_batch(sampler, class_id, batch, generation.micro_batch, config.seed)
                )
                report.told(next(done), {})
            first = span.start - span.start % generation.micro_batch
            writer.write(class_id, span, np.concatenate(sampled)[span.start - first : span.stop - first])
    writer.commit(per_class_C)


def sample_micro_batch(sampler: ImageSampler, class_id: int, batch: int, micro_batch: int, seed: int) -> Uint8:
    """Return micro-batch number `batch` of a class, [micro_batch, channels, H, W]."""
    first = batch * micro_batch
    generators = [
        torch.Generator().manual_seed(seed_for(seed, "synthetic-image", class_id, index))
        for index in range(first, first + micro_batch)
    ]
    return sampler.sample(class_id, generators)


def _micro_batches(span: range, micro_batch: int) -> range:
    return range(span.start // micro_batch, math.ceil(span.stop / micro_batch))
