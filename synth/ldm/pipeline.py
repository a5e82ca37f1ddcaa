"""A class-conditional latent diffusion pipeline: class names in, images out.

This one file is copied into the folder of the weights, so that diffusers alone can load and run the pipeline:
`DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`. So it imports nothing from rlcas or synth.
"""

from __future__ import annotations

import html
import json
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ImagePipelineOutput, UNet2DModel
from diffusers.schedulers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

CODE_NAME = "class_conditional_ldm"
"""The copy's name without its ending. It is our own, because diffusers loads all local files of one name as one module,
and most projects call theirs `pipeline.py`."""


class ClassConditionalLDMPipeline(DiffusionPipeline):
    """Images of given classes by classifier-free guidance; the UNet's last class is the null class.

    Args:
        unet: class-conditional denoiser with C+1 class embeddings.
        vae: autoencoder whose config holds the latents' scale and shift.
        scheduler: few-step sampler.
        id2label: class number, as text, -> class name. None: classes have numbers only.
        image_shape: channels, height and width that decoded images are cropped to. None: not cropped.
        training: facts about the training for the model card: `data` (a name), `images` (class -> number),
            `settings` and `figures` (name -> value). None: unknown.
    """

    # Read now: where diffusers loads this file from its cache, another folder's file may replace it there later.
    _source = Path(__file__).read_text(encoding="utf-8")

    def __init__(
        self,
        unet: UNet2DModel,
        vae: AutoencoderKL,
        scheduler: SchedulerMixin,
        id2label: dict[str, str] | None = None,
        image_shape: dict[str, int] | None = None,
        training: dict[str, object] | None = None,
    ) -> None:
        super().__init__()
        if "clip_sample" not in scheduler.config:
            # Latents exceed ±1. UniPC never clips, but DDIM and DDPM do by default, and a swap by
            # `DDIMScheduler.from_config(pipeline.scheduler.config)` takes this value instead.
            scheduler.register_to_config(clip_sample=False)
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler)
        self.register_to_config(id2label=id2label, image_shape=image_shape, training=training)

    @property
    def num_classes(self) -> int:
        """Return C."""
        return self.unet.config.num_class_embeds - 1

    @property
    def class_names(self) -> list[str]:
        """Return the C names; a class without a name has its number as text."""
        # The keys are text, because JSON would turn numbers into text when the config is saved.
        names = {int(number): name for number, name in (self.config.id2label or {}).items()}
        return [names.get(number, str(number)) for number in range(self.num_classes)]

    @property
    def image_shape_CHW(self) -> tuple[int, int, int] | None:
        """Return (channels, height, width) of the images, or None if they are not cropped."""
        shape = self.config.image_shape
        return None if shape is None else (shape["channels"], shape["height"], shape["width"])

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 1.5,
        output_type: str = "pil",
        return_dict: bool = True,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        images: torch.Tensor | None = None,
        strength: float = 0.5,
    ) -> ImagePipelineOutput | tuple:
        """Sample one image for each class label, from noise or from an image.

        Args:
            class_labels: numbers or names of classes, or a single one; also as an array or tensor of numbers.
            generator: one for all images, or one for each, so that an image does not depend on the others.
            num_inference_steps: denoising steps.
            guidance_scale: 1 means no guidance and halves the cost.
            output_type: "pil", "np" [N, H, W, channels] or "pt" [N, channels, H, W], floats in [0, 1]; or
                "latent", the input of `decode`.
            return_dict: return an ImagePipelineOutput instead of a tuple.
            guidance_interval: lowest and highest noise level t/T, both included, of the steps with guidance; the
                other steps use the conditional prediction and cost half (Kynkäänniemi et al. 2024).
            images: one for each label to start from, [N, channels, H, W] floats in [0, 1]. None: noise alone.
            strength: highest noise level t/T of the steps with `images`, which are noised to the first of them; 1 is
                nearly noise alone. Where no step is as low, the images are only encoded and decoded.
        """
        # A name is a sequence too, of letters.
        single = isinstance(class_labels, str) or getattr(class_labels, "ndim", 1) == 0
        wanted = [class_labels] if single or isinstance(class_labels, int | float) else list(class_labels)
        if not wanted:
            raise ValueError(f"no class label is given: use 0 to {self.num_classes - 1}, or {self.class_names}")
        labels = torch.tensor([self._number_of(label) for label in wanted], device=self.device)
        channels, (height, width) = self.unet.config.in_channels, self.unet.config.sample_size
        # From a list of generators, row i is drawn by generator i alone, on the generator's device.
        noise = randn_tensor(
            (len(labels), channels, height, width),
            generator=generator,
            device=self.device,
            dtype=self.unet.dtype,
        )
        # Also clears the history that multistep solvers such as UniPC keep from an earlier call.
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        if images is None:
            timesteps, latents = self.scheduler.timesteps, noise * self.scheduler.init_noise_sigma
        else:
            timesteps, latents = self._steps_up_to(strength), self.encode(self._checked(images, len(labels)))
            if len(timesteps):
                latents = self.scheduler.add_noise(latents, noise, timesteps[:1])
        scales = self._scales(timesteps, guidance_scale, guidance_interval)
        for timestep, scale in zip(self.progress_bar(timesteps), scales, strict=True):
            model_input = self.scheduler.scale_model_input(latents, timestep)
            predicted = self._guided(model_input, timestep, labels, scale)
            latents = self.scheduler.step(predicted, timestep, latents).prev_sample
        sampled = latents if output_type == "latent" else self._converted(self.decode(latents), output_type)
        return ImagePipelineOutput(images=sampled) if return_dict else (sampled,)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return normalised latents [N, c, h, w], the posteriors' means, of images [N, channels, H, W] in [0, 1]."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        size = [side * factor for side in self.unet.config.sample_size]
        pixels = mirror_padded(images.to(self.device, self.vae.dtype), size) * 2 - 1
        pixels = pixels.expand(-1, self.vae.config.in_channels, -1, -1)  # gray for a VAE of three channels
        latents = self.vae.encode(pixels.contiguous()).latent_dist.mean
        latents = (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        return latents.to(self.unet.dtype)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images [N, channels, H, W] in [0, 1] from normalised latents."""
        # Back from mean 0 and deviation 1 to the VAE's own latents.
        latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        images = self.vae.decode(latents.to(self.vae.dtype)).sample
        if self.image_shape_CHW is not None:
            channels, height, width = self.image_shape_CHW
            # Training pads images by mirroring to a side that the UNet can halve; this cuts the padding off.
            top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
            images = images[:, :, top : top + height, left : left + width]
            if images.shape[1] != channels:
                images = images.mean(dim=1, keepdim=True)  # gray images may use a VAE of three channels
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: object) -> None:
        """Save the weights, this file and a model card; with `push_to_hub=True` upload all of them."""
        folder = os.fspath(save_directory)  # diffusers splits it as text to name the repository
        super().save_pretrained(folder, **kwargs)
        self._add_code_and_card(folder)

    def to_json_string(self) -> str:
        """Return model_index.json, which names this file, so that diffusers finds the class in it."""
        config = json.loads(super().to_json_string())
        config["_class_name"] = [CODE_NAME, ClassConditionalLDMPipeline.__name__]
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, object]:
        """Return model_index.json with the class alone: this class is here, and runs no code from the folder."""
        return {**super()._dict_from_json_file(json_file), "_class_name": cls.__name__}

    def _upload_folder(self, working_dir: str | os.PathLike[str], *args: object, **kwargs: object) -> object:
        """Upload a saved folder: diffusers' `push_to_hub` has put an empty model card into it."""
        self._add_code_and_card(working_dir)
        return super()._upload_folder(working_dir, *args, **kwargs)

    def _add_code_and_card(self, folder: str | os.PathLike[str]) -> None:
        Path(folder, f"{CODE_NAME}.py").write_text(self._source, encoding="utf-8")
        Path(folder, "README.md").write_text(self.model_card(), encoding="utf-8")

    def model_card(self) -> str:
        """Return the model card in Markdown: training data, classes, use, settings, limits."""
        training = self.config.training or {}
        images = training.get("images", {})
        rows = [(number, name, images.get(name, "unknown")) for number, name in enumerate(self.class_names)]
        facts = {**training.get("settings", {}), **training.get("figures", {})}
        return MODEL_CARD.format(
            data=_cell(training.get("data", "unknown data")),
            classes=_table(("number", "class", "training images"), rows),
            label=repr(self.class_names[0]),
            facts=_table(("setting or figure", "value"), facts.items()),
        )

    def _converted(self, images: torch.Tensor, output_type: str) -> object:
        if output_type == "pt":
            return images
        array = images.permute(0, 2, 3, 1).cpu().numpy()
        return self.numpy_to_pil(array) if output_type == "pil" else array

    def _steps_up_to(self, strength: float) -> torch.Tensor:
        """Return the timesteps of a noise level t/T up to `strength`, and tell the scheduler where it begins.

        Raises:
            ValueError: the strength is not in (0, 1].
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength {strength} is no noise level: give one above 0 and up to 1")
        timesteps, order = self.scheduler.timesteps, self.scheduler.order
        num_left_out = int((timesteps > strength * self.scheduler.config.num_train_timesteps).sum())
        # Schedulers of a higher order list a timestep once for each of its evaluations.
        first = -(-num_left_out // order) * order
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(first)
        return timesteps[first:]

    def _checked(self, images: torch.Tensor, num_labels: int) -> torch.Tensor:
        """Return the images to start from.

        Raises:
            ValueError: there is not one of the pipeline's shape for each label.
        """
        wanted = (num_labels, *(self.image_shape_CHW or images.shape[1:]))
        if tuple(images.shape) != wanted:
            raise ValueError(
                f"images have the shape {list(images.shape)}: give {list(wanted)}, one for each label"
            )
        return images

    def _scales(self, timesteps: torch.Tensor, scale: float, interval: tuple[float, float]) -> list[float]:
        """Return the guidance scale of every step: `scale` inside the interval of noise levels, 1 outside it."""
        low, high = interval
        levels = timesteps / self.scheduler.config.num_train_timesteps
        return [scale if low <= level <= high else 1.0 for level in levels.tolist()]

    def _guided(
        self, model_input: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Return the UNet's prediction; at a scale other than 1, with guidance from one pass over both halves."""
        if scale == 1.0:
            return self.unet(model_input, timestep, class_labels=labels).sample
        null = torch.full_like(labels, self.num_classes)
        predicted = self.unet(
            torch.cat([model_input, model_input]), timestep, class_labels=torch.cat([labels, null])
        ).sample
        conditional, unconditional = predicted.chunk(2)
        # Classifier-free guidance (Ho and Salimans 2022).
        return unconditional + scale * (conditional - unconditional)

    def _number_of(self, label: object) -> int:
        """Return the number of a class.

        Raises:
            ValueError: there is no such class. This file has no UserError.
        """
        names = self.class_names
        # Tensors and NumPy's integers are numbers too.
        number = names.index(label) if isinstance(label, str) and label in names else _integer(label)
        if number is None or not 0 <= number < self.num_classes:
            raise ValueError(
                f"class label {label!r} is unknown: use 0 to {self.num_classes - 1}, or one of {names}"
            )
        return number


def mirror_padded(images_NCHW: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the images in the middle of mirror padding to a height and width.

    By index, because `F.pad` cannot reflect more pixels than the image has: a side of 16 px at factor 8 needs 24.
    """
    for axis, wanted in zip((2, 3), size, strict=True):
        side = images_NCHW.shape[axis]
        if missing := wanted - side:
            reflected = np.pad(np.arange(side), (missing // 2, missing - missing // 2), mode="reflect")
            images_NCHW = images_NCHW.index_select(axis, torch.from_numpy(reflected).to(images_NCHW.device))
    return images_NCHW


MODEL_CARD = """---
library_name: diffusers
license: unknown
tags: [latent-diffusion, class-conditional]
---

# Class-conditional latent diffusion: {data}

Makes images of the classes below: an autoencoder, a class-conditional denoiser in its latents, and a few-step
sampler. The denoiser was trained together with a decoder of sketches, which sampling does not need.

## Classes

{classes}

## Use

With diffusers alone (`trust_remote_code` runs the `class_conditional_ldm.py` of this folder):

```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
pipeline([{label}], generator=[torch.Generator().manual_seed(0)]).images
```

A label is a class's name or number; with one generator per image, an image does not depend on the others.

## Training

{facts}

## Intended use and limits

For research: more training images for classes that have few. Not a medical device, and not a source of evidence about
patients. The images repeat the biases of the training images, and some may be near copies of one of them: look for
copies before images or weights are shared.

## Licence

Not stated. Who trained the weights chooses it, within what the training images and any pretrained part allow.
"""


def _integer(label: object) -> int | None:
    try:
        return operator.index(label)  # type: ignore[arg-type]
    except TypeError:
        return None


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    # Class names are the user's: they must neither add HTML to the card nor end a cell of its table.
    return html.escape(str(value), quote=False).replace("|", "&#124;")
