"""The class-conditional denoiser and the sketch branch on its way down (paper, section 2.1).

The UNet stays diffusers' own: hooks read f_1..f_4 from it, so that what is saved needs none of this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from rlcas.config import DenoiserConfig
from synth.training.workers import Workers

NUM_LEVELS = 4
NORM_GROUPS = 8
HEAD_CHANNELS = 8
SKETCH_CHANNELS = 16


def build_unet(
    config: DenoiserConfig, *, latent_channels: int, latent_size: tuple[int, int], num_classes: int
) -> UNet2DModel:
    """Return a UNet whose class embedding has one more row, the null class C of unlabelled training.

    Class and time modulate scale and shift of every residual block (adaptive group normalisation).

    Args:
        config: settings of the denoiser.
        latent_channels: channels of the latent.
        latent_size: height and width of the latent, both divisible by 8.
        num_classes: C.
    """
    assert all(side % 2 ** (NUM_LEVELS - 1) == 0 for side in latent_size), latent_size
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        dropout=config.dropout,
        attention_head_dim=HEAD_CHANNELS,
        norm_num_groups=NORM_GROUPS,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=num_classes + 1,
    )


class FeatureHooks:
    """Forward hooks that keep f_1..f_4: what each down block computes before it halves the resolution.

    A block's own output is already halved; of its residuals, the one after its last ResNet layer is f_i,
    so that the sides are H, H/2, H/4 and H/8 as in the paper.
    """

    def __init__(self, unet: UNet2DModel) -> None:
        self._features: list[Tensor] = []
        self._last_resnet = {block: len(block.resnets) - 1 for block in unet.down_blocks}
        for block in unet.down_blocks:
            block.register_forward_hook(self._keep)

    def take(self) -> list[Tensor]:
        """Return f_1..f_4 of the last forward pass, and forget them."""
        features, self._features = self._features, []
        return features

    def _keep(self, block: nn.Module, _: tuple, output: tuple[Tensor, tuple[Tensor, ...]]) -> None:
        self._features.append(output[1][self._last_resnet[block]])


class SketchDecoder(nn.Module):
    """S_pred from f_1..f_4: narrow each, concatenate at the latent's size, and rise by transposed convolution.

    The paper says "concatenates f and performs upsampling via transposed convolution"; log2(factor) steps lead
    from the latent's size to pixels. It is lean on purpose: the branch is dropped after training.
    """

    def __init__(self, feature_channels: tuple[int, ...], factor: int) -> None:
        super().__init__()
        width = SKETCH_CHANNELS
        self.narrow = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in feature_channels)
        widths = [len(feature_channels) * width] + [width] * (factor.bit_length() - 2)
        self.to_pixels = nn.Sequential(
            *[_doubling(wide, narrow) for wide, narrow in itertools.pairwise(widths)],
            nn.ConvTranspose2d(widths[-1], 1, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return [N, 1, H, W] in [0, 1] from f_1..f_4, finest first."""
        finest, *coarser = (narrow(feature) for narrow, feature in zip(self.narrow, features, strict=True))
        enlarged = [F.interpolate(feature, finest.shape[-2:]) for feature in coarser]
        return self.to_pixels(torch.cat([finest, *enlarged], dim=1))


class SharedDropout(nn.Module):
    """Dropout of a batch that several workers share: each draws the mask of all of it and uses its own rows."""

    def __init__(self, share: float, generator: torch.Generator, workers: Workers) -> None:
        super().__init__()
        self._kept = 1.0 - share
        self._generator, self._workers = generator, workers

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, in training some of them 0 and the others enlarged by as much."""
        if not self.training or self._kept == 1.0:
            return features
        whole = (len(features) * self._workers.size, *features.shape[1:])
        mask = torch.empty(
            whole, device=features.device, dtype=features.dtype, memory_format=torch.channels_last
        )
        mask.bernoulli_(self._kept, generator=self._generator)
        return features * self._workers.share(mask).mul_(1.0 / self._kept)


class SketchSupervisedDenoiser(nn.Module):
    """UNet and all that only its training needs, as one module, so that one optimiser, average or DDP wraps it.

    That is the sketch decoder, dropout whose draws are ours, and the embedding of augmentations: a vector that
    is added to the class's and is zero for an image as it is. So the denoiser can tell what augmentation did to
    an image, and does not do it of itself (Karras et al. 2022, appendix F.2).

    Args:
        unet: the denoiser; it gets hooks, and `stock_unet` gives it without them.
        factor: pixels of a latent element's side.
        with_sketch: have a sketch decoder.
        num_augmentations: A, length of the vectors that tell augmentations; 0 is none.
        dropout: draws the masks of the UNet's dropout in place of PyTorch's global generator.
    """

    def __init__(
        self, unet: UNet2DModel, factor: int, *, with_sketch: bool, num_augmentations: int, dropout: nn.Module
    ) -> None:
        super().__init__()
        self.unet = unet
        widths = tuple(unet.config.block_out_channels)
        self.sketch_decoder = SketchDecoder(widths, factor) if with_sketch else None
        self._feature_hooks = FeatureHooks(unet) if with_sketch else None
        embedding = unet.class_embedding
        self.augmentation = (
            nn.Linear(num_augmentations, embedding.embedding_dim, bias=False) if num_augmentations else None
        )
        if self.augmentation is not None:
            nn.init.zeros_(self.augmentation.weight)
            embedding.register_forward_hook(self._add_augmentation)
        self._augmentations_NA: Tensor | None = None
        for block in unet.modules():
            if isinstance(block, ResnetBlock2D):
                block.dropout = dropout

    def forward(
        self,
        noisy_NChw: Tensor,
        timesteps_N: Tensor,
        labels_N: Tensor,
        augmentations_NA: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the denoiser's prediction [N, C, h, w], and S_pred [N, 1, H, W] or None without the branch."""
        self._augmentations_NA = augmentations_NA
        predicted = self.unet(noisy_NChw, timesteps_N, class_labels=labels_N).sample
        if self.sketch_decoder is None or self._feature_hooks is None:
            return predicted, None
        return predicted, self.sketch_decoder(self._feature_hooks.take())

    def stock_unet(self, weights: Mapping[str, Tensor]) -> UNet2DModel:
        """Return diffusers' own UNet without hooks, with this module's `weights` by name; in evaluation mode."""
        unet = UNet2DModel.from_config(self.unet.config)
        own = {
            name.removeprefix("unet."): tensor for name, tensor in weights.items() if name.startswith("unet.")
        }
        unet.load_state_dict(own)
        return unet.to(self.unet.device).eval()

    def _add_augmentation(self, _: nn.Module, __: tuple[Tensor], embedded_NE: Tensor) -> Tensor:
        if self._augmentations_NA is None or self.augmentation is None:
            return embedded_NE
        return embedded_NE + self.augmentation(self._augmentations_NA).to(embedded_NE.dtype)


def _doubling(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1), nn.SiLU(inplace=True)
    )
