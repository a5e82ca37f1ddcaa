"""The effect of MGDM's second stage on the images of a run, by the scale of its gradient.

The argument is the folder of a `rlcas synth train --synth.generator mgdm`. entropy is the classifier's mean entropy on
the clean latents, in nats; own_label its mean probability of the intended label; moved the root mean square of the
change of the normalised latents by stage two.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import emit, parser
from PIL import Image
from torch import Tensor

from rlcas import settings
from rlcas.config import RunConfig
from rlcas.devices import choose_device
from rlcas.runs.folder import RunFolder
from rlcas.seeding import seed_for
from rlcas.types import Uint8
from synth.mgdm.disturbance import Disturbance, entropy
from synth.mgdm.mgdm import MgdmSampler, open_mgdm

SCALES = (0.0, 1.0, 5.0, 20.0, 80.0)


@torch.no_grad()
def figures(classifier: torch.nn.Module, before: Tensor, after: Tensor, label: int) -> dict[str, float]:
    """Return the figures of a case.

    Args:
        classifier: the noise-aware classifier.
        before: latents of stage one.
        after: the same latents after stage two.
        label: their class.
    """
    logits_NC = classifier(after, torch.zeros(len(after), device=after.device))
    return {
        "entropy": entropy(logits_NC).mean().item(),
        "own_label": logits_NC.softmax(dim=1)[:, label].mean().item(),
        "moved": (after - before).square().mean().sqrt().item(),
    }


def stages(sampler: MgdmSampler, class_id: int, num_images: int, config: RunConfig) -> dict[str, Tensor]:
    """Return the latents of stage one, and of stage two at each scale.

    Args:
        sampler: the trained generator.
        class_id: class of the images.
        num_images: number of images.
        config: the run's settings.
    """
    generators = [
        torch.Generator().manual_seed(seed_for(config.seed, "synthetic-image", class_id, index))
        for index in range(num_images)
    ]
    first = sampler.ldm.latents(class_id, generators)
    labels = torch.full((num_images,), class_id, device=first.device)
    made = {"stage_1": first}
    for scale in SCALES:
        scaled = config.synth.mgdm.model_copy(update={"scale": scale})
        made[f"scale_{scale:g}"] = Disturbance(sampler.ldm.pipeline, sampler.classifier, scaled)(first, labels)
    return made


def row(images_NCHW: Uint8) -> Uint8:
    """Return the images side by side, [H, N W, channels]."""
    return np.concatenate(list(images_NCHW.transpose(0, 2, 3, 1)), axis=1)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("run", type=Path, help="the run's folder")
    arguments.add_argument("--images", type=int, default=32, help="images a class")
    arguments.add_argument("--sheet", type=Path, help="write the images here, a row a case")
    options = arguments.parse_args()
    config = settings.load(options.run)
    sampler = open_mgdm(RunFolder(options.run).synth, config, choose_device(config.device))
    results, rows = {}, []
    for class_id, name in enumerate(sampler.class_names):
        made = stages(sampler, class_id, options.images, config)
        for case, latents in made.items():
            results[f"{name}_{case}"] = figures(sampler.classifier, made["stage_1"], latents, class_id)
            rows.append(row(sampler.ldm.decode(latents)))
    if options.sheet:
        Image.fromarray(np.concatenate(rows).squeeze()).save(options.sheet)
    emit("MGDM's second stage", results, options.json)


if __name__ == "__main__":
    main()
