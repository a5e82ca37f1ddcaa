"""Filling a pool: image i of class c from its own seed, whatever else is sampled.

Micro-batch b of a class always holds images b·m .. b·m+m-1, whole even where fewer are asked for: so an image
has the same neighbours in the same batch shape in every run, and the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError

from rlcas.config import GenerationConfig, RunConfig
from rlcas.errors import UserError, first_line
from rlcas.files import sha256_of
from rlcas.seeding import seed_for
from rlcas.types import Uint8
from synth.pipeline import ClassConditionalLDMPipeline
from synth.pool import PoolWriter
from synth.progress import Reporter


def fill_pool(
    pipeline_folder: Path,
    pool_folder: Path,
    per_class_C: list[int],
    config: RunConfig,
    *,
    device: torch.device,
    progress: bool,
) -> None:
    """Sample `per_class_C[c]` images of each class c into a pool; shards that are already there are kept.

    Raises:
        UserError: there is no synthesiser in `pipeline_folder`, it has another number of classes, or
            `pool_folder` holds a pool of other weights or settings.
    """
    pipeline = load_pipeline(pipeline_folder, device)
    if len(per_class_C) != pipeline.num_classes:
        raise UserError(
            f"{pipeline_folder} makes {pipeline.num_classes} classes, but {len(per_class_C)} are asked for: "
            "train a synthesiser on this data set"
        )
    assert pipeline.image_shape_CHW is not None, "train_synthesiser saves the shape"
    generation = config.synth.generation
    writer = PoolWriter(
        pool_folder,
        class_names=pipeline.class_names,
        image_shape_CHW=pipeline.image_shape_CHW,
        shard_images=generation.shard_images,
        source={
            "pipeline_sha256": folder_sha256(pipeline_folder),
            "scheduler": type(pipeline.scheduler).__name__,
            "seed": config.seed,
            **generation.model_dump(include={"steps", "guidance", "micro_batch"}),
        },
    )
    missing = writer.missing(per_class_C)
    batches = sum(len(_micro_batches(span, generation.micro_batch)) for _, span in missing)
    with Reporter(progress=progress).part("sampling", batches) as report:
        done = iter(range(batches))
        for class_id, span in missing:
            sampled = []
            for batch in _micro_batches(span, generation.micro_batch):
                sampled.append(sample_micro_batch(pipeline, class_id, batch, generation, config.seed))
                report(next(done), {})
            first = span.start - span.start % generation.micro_batch
            writer.write(class_id, span, np.concatenate(sampled)[span.start - first : span.stop - first])
    writer.commit(per_class_C)


def sample_micro_batch(
    pipeline: ClassConditionalLDMPipeline, class_id: int, batch: int, generation: GenerationConfig, seed: int
) -> Uint8:
    """Return micro-batch number `batch` of a class, [micro_batch, channels, H, W]."""
    first = batch * generation.micro_batch
    generators = [
        torch.Generator().manual_seed(seed_for(seed, "synthetic-image", class_id, index))
        for index in range(first, first + generation.micro_batch)
    ]
    (images,) = pipeline(
        [class_id] * len(generators),
        generator=generators,
        num_inference_steps=generation.steps,
        guidance_scale=generation.guidance,
        output_type="pt",
        return_dict=False,
    )
    return (images * 255.0).round().to(torch.uint8).cpu().numpy()


def load_pipeline(folder: Path, device: torch.device) -> ClassConditionalLDMPipeline:
    """Return the pipeline saved in `folder`, in evaluation mode and without its own progress bar.

    Raises:
        UserError: there is none, or it does not load.
    """
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} holds no synthesiser: train one with `rlcas synth train`")
    diffusers_logging.disable_progress_bar()
    try:
        pipeline = ClassConditionalLDMPipeline.from_pretrained(
            folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder} cannot be loaded as a synthesiser ({first_line(error)}): train one again with "
            "`rlcas synth train`"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def folder_sha256(folder: Path) -> str:
    """Return a hash of the pipeline's weights and settings."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            digest.update(f"{file.relative_to(folder).as_posix()}:{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _micro_batches(span: range, micro_batch: int) -> range:
    return range(span.start // micro_batch, math.ceil(span.stop / micro_batch))
