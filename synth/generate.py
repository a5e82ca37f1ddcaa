"""Filling a pool: image i of class c depends on its seed and its source alone, not on order, process or pool size.

Micro-batch b of a class always holds images b·m .. b·m+m-1 and is sampled in full even if fewer are requested.
Convolutions of another batch size differ in the last bits, so only a fixed batch shape with the same neighbours
makes an image's bytes the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from rlcas.config import GenerationConfig, RunConfig
from rlcas.devices import same_bits, torch_threads
from rlcas.errors import UserError
from rlcas.seeding import seed_for
from rlcas.types import Uint8
from synth.generators import ImageSampler, ImageStartSampler, StartImages, check_start, generator_of
from synth.pool import PoolWriter
from synth.training.progress import PartProgress, Reporter


class MicroBatch(NamedTuple):
    """Images number · m .. number · m + m-1 of a class, needed for one of the missing shards."""

    shard: int
    """Index in the list of missing shards."""
    class_id: int
    number: int


SampleAll = Callable[[Sequence[MicroBatch]], Iterable[tuple[MicroBatch, Uint8]]]
"""Yields every micro-batch with its images [micro_batch, channels, H, W], in any order."""


def fill_pool(
    synth_folder: Path,
    pool_folder: Path,
    class_sizes_C: list[int],
    config: RunConfig,
    *,
    device: torch.device,
    progress: bool,
    sample_all: SampleAll | None = None,
    start: StartImages | None = None,
    learnt_from: Sequence[str] | None = None,
) -> None:
    """Sample `class_sizes_C[c]` images of each class c into a pool; shards that already exist are kept.

    Args:
        synth_folder: the trained generator.
        pool_folder: where the pool is written.
        class_sizes_C: [C] images of each class.
        config: `config.synth` and `config.seed` are used.
        device: where to sample.
        progress: show a bar on a terminal, lines in a log.
        sample_all: samples the micro-batches in other processes, by `sample_micro_batch`. None: one after another
            in this process.
        start: the real images to start from, where `synth.generation.start` is image.
        learnt_from: hashes of the images that the generator was trained on, for the manifest.

    Raises:
        UserError: `synth_folder` holds no synthesiser or one with another number of classes, `pool_folder` holds a
            pool of other weights, settings or images to start from, or the disk is full.
    """
    # Opened even if other processes sample: class names, shape and origin come from it.
    sampler = open_sampler(synth_folder, config, device)
    if len(class_sizes_C) != len(sampler.class_names):
        raise UserError(
            f"{synth_folder} makes {len(sampler.class_names)} classes, but {len(class_sizes_C)} are asked for: "
            "train a synthesiser on this data set"
        )
    assert (start is None) == (config.synth.generation.start == "noise")
    writer = _writer(pool_folder, sampler, config, start, learnt_from)
    missing = writer.missing(class_sizes_C)
    batches = [
        MicroBatch(shard, class_id, number)
        for shard, (class_id, span) in enumerate(missing)
        for number in _micro_batch_numbers(span, config.synth.generation)
    ]
    sampled = sample_all(batches) if sample_all else _sample_in_turn(sampler, batches, config, device, start)
    with Reporter(progress=progress).part("sampling", len(batches)) as part_progress:
        _write_shards(writer, missing, _counted(sampled, part_progress), config.synth.generation)
    writer.commit(class_sizes_C)


def open_sampler(synth_folder: Path, config: RunConfig, device: torch.device) -> ImageSampler:
    """Return the sampler of the generator named in the settings, as trained in `synth_folder`.

    Raises:
        UserError: the folder holds none, it does not load, or it cannot start from what the settings say.
    """
    check_start(config)
    return generator_of(config).open(synth_folder, config, device)


def sample_micro_batch(
    sampler: ImageSampler,
    batch: MicroBatch,
    config: RunConfig,
    device: torch.device,
    start: StartImages | None = None,
) -> Uint8:
    """Return the images of `batch`, [micro_batch, channels, H, W]: the same bytes in every process.

    Args:
        sampler: the opened generator.
        batch: class and number of the micro-batch.
        config: `config.synth.generation` and `config.seed` are used.
        device: the sampler's device.
        start: the real images to start from; None: noise alone.
    """
    generation = config.synth.generation
    first = batch.number * generation.micro_batch
    indices = range(first, first + generation.micro_batch)
    generators = [
        # On the CPU: from the same seed, a GPU's generator draws other numbers.
        torch.Generator().manual_seed(seed_for(config.seed, "synthetic-image", batch.class_id, index))
        for index in indices
    ]
    # The number of threads changes the last bits of convolutions, so it is a recorded setting and not that of
    # the machine or of the worker.
    with same_bits(device), torch_threads(generation.threads):
        if start is None:
            return sampler.sample(batch.class_id, generators)
        # `open_sampler` has checked that it can.
        starting = cast("ImageStartSampler", sampler)
        return starting.sample_from(batch.class_id, generators, start.images(batch.class_id, indices))


def _writer(
    pool_folder: Path,
    sampler: ImageSampler,
    config: RunConfig,
    start: StartImages | None,
    learnt_from: Sequence[str] | None,
) -> PoolWriter:
    generation = config.synth.generation
    return PoolWriter(
        pool_folder,
        class_names=sampler.class_names,
        image_shape_CHW=sampler.image_shape_CHW,
        shard_images=generation.shard_images,
        # All that the bytes depend on: a pool with another source is not resumed.
        source={
            "generator": config.synth.generator,
            **sampler.origin,
            "seed": config.seed,
            "micro_batch": generation.micro_batch,
            "threads": generation.threads,
            **({} if start is None else {"strength": generation.strength, **start.origin}),
        },
        learnt_from=learnt_from,
    )


def _sample_in_turn(
    sampler: ImageSampler,
    batches: Sequence[MicroBatch],
    config: RunConfig,
    device: torch.device,
    start: StartImages | None,
) -> Iterator[tuple[MicroBatch, Uint8]]:
    for batch in batches:
        yield batch, sample_micro_batch(sampler, batch, config, device, start)


def _counted(
    sampled: Iterable[tuple[MicroBatch, Uint8]], part_progress: PartProgress
) -> Iterator[tuple[MicroBatch, Uint8]]:
    for done, pair in enumerate(sampled, start=1):
        yield pair
        # Reached when the consumer asks for the next one, so a micro-batch counts once it has been written.
        part_progress.update(done, {})


def _write_shards(
    writer: PoolWriter,
    missing: Sequence[tuple[int, range]],
    sampled: Iterable[tuple[MicroBatch, Uint8]],
    generation: GenerationConfig,
) -> None:
    """Write each shard as soon as all of its micro-batches have arrived, in any order."""
    received: list[dict[int, Uint8]] = [{} for _ in missing]
    for batch, images_NCHW in sampled:
        class_id, span = missing[batch.shard]
        images_by_number = received[batch.shard]
        images_by_number[batch.number] = images_NCHW
        if len(images_by_number) == len(_micro_batch_numbers(span, generation)):
            images_NCHW = np.concatenate([images for _, images in sorted(images_by_number.items())])
            # Shards need not begin or end with a micro-batch: cut off the images of the neighbouring shards.
            first = span.start - span.start % generation.micro_batch
            writer.write(class_id, span, images_NCHW[span.start - first : span.stop - first])
            images_by_number.clear()


def _micro_batch_numbers(span: range, generation: GenerationConfig) -> range:
    return range(span.start // generation.micro_batch, math.ceil(span.stop / generation.micro_batch))
