"""A LoRA on the UNet of Stable Diffusion: its objective and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from rlcas.config import SkinSdmConfig
from rlcas.devices import autocast
from rlcas.errors import UserError, first_line
from synth.ldm.diffusion import target_of
from synth.ldm.latent_batches import NoisedLatentBatches
from synth.ldm.latents import Moments
from synth.training.workers import Workers

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

LORA_FILE = "pytorch_lora_weights.safetensors"
ADAPTED_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


class AdaptedUNet(nn.Module):
    """A frozen UNet with its LoRA; the module's parameters are those of the LoRA only.

    The UNet is in a tuple because nn.Module would register it as a submodule, and optimiser, gradient averaging and
    checkpoints would then include the base model.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self._unregistered = (unet,)
        self.adapter = nn.ParameterList(p for p in unet.parameters() if p.requires_grad)

    def forward(self, noisy_NChw: Tensor, timesteps_N: Tensor, text_NLD: Tensor) -> Tensor:
        """Return the UNet's prediction [N, c, h, w]."""
        return self._unregistered[0](noisy_NChw, timesteps_N, encoder_hidden_states=text_NLD).sample


class LoraObjective:
    """The base model's own objective, for a LoRA on its UNet (a `synth.training.loop.TrainingObjective`).

    Args:
        pipeline: the frozen base model; the adapter is added to its UNet.
        moments: the training latents.
        prompts_C: each class's prompt.
        config: settings of Skin-SDM.
        seed: the run's seed.
        workers: the processes that share a batch.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        moments: Moments,
        prompts_C: Sequence[str],
        config: SkinSdmConfig,
        *,
        seed: int,
        workers: Workers,
    ) -> None:
        workers.check_divides(config.batch_size, "synth.skin_sdm.batch_size")
        # Before AdaptedUNet, which collects the parameters that the adapter adds: all others are frozen.
        add_lora(pipeline, config.rank)
        self.module = AdaptedUNet(pipeline.unet)
        with torch.no_grad():
            # Computed once, as the text encoder is frozen. One image for each prompt, and no unconditional
            # embeddings: labels are not dropped.
            self._text_CLD, _ = pipeline.encode_prompt(list(prompts_C), pipeline.device, 1, False)
        self._prediction = pipeline.scheduler.config.prediction_type
        self._batches = NoisedLatentBatches(
            moments,
            lambda latents: latents * pipeline.vae.config.scaling_factor,  # Stable Diffusion has no shift
            pipeline.scheduler.alphas_cumprod,
            batch_size=config.batch_size,
            class_balance=config.class_balance,
            path=(seed, "lora"),
            workers=workers,
        )

    def losses(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Return the mean squared error on this worker's rows of batch `step`, also as total."""
        batch = self._batches.batch(step)
        with autocast("auto", batch.noisy_NChw.device):
            predicted = module(batch.noisy_NChw, batch.timesteps_N, self._text_CLD[batch.labels_N])
        target = target_of(self._prediction, batch.latents_NChw, batch.noise_NChw, batch.abar_N)
        loss = F.mse_loss(predicted.float(), target)  # the prediction may be bf16
        return {"loss": loss, "total": loss}


def add_lora(pipeline: StableDiffusionPipeline, rank: int) -> None:
    """Add a LoRA of scale 1 to every attention of the UNet, initialised from PyTorch's global generator.

    One of its two matrices starts at zero, so the UNet's output is unchanged at first.
    """
    from peft import LoraConfig

    pipeline.unet.add_adapter(
        # In peft the scale is lora_alpha / r, so 1.
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ADAPTED_LAYERS)
    )


def save_lora(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the adapter without the base model.

    The pipeline's `save_pretrained` would write the UNet's weights under names with the adapter's prefix, which
    `from_pretrained` does not find.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=LORA_FILE)


def load_lora(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Load the adapter in `folder` into the UNet.

    Raises:
        UserError: it does not load.
    """
    try:
        pipeline.unet.load_lora_adapter(
            folder, prefix="unet", weight_name=LORA_FILE, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / LORA_FILE} cannot be loaded ({first_line(error)}): train again with `rlcas synth train "
            "--synth.generator skin_sdm`"
        ) from error
