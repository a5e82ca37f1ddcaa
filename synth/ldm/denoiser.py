"""The class-conditional denoiser with the sketch branch on its down blocks (paper, section 2.1).

The UNet stays diffusers' own: hooks read f_1..f_4 from it, so that the saved weights need nothing of this file.
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
NORM_GROUPS = 8  # diffusers' default of 32 does not divide narrow levels
HEAD_CHANNELS = 8  # must divide the channels of the levels with attention
SKETCH_CHANNELS = 16


def build_unet(
    config: DenoiserConfig, *, latent_channels: int, latent_size: tuple[int, int], num_classes: int
) -> UNet2DModel:
    """Return a UNet whose class embedding has C + 1 rows; the last is the null class of unconditional training.

    Class and time set scale and shift of the normalisation in every residual block (adaptive group normalisation).

    Args:
        config: settings of the denoiser.
        latent_channels: channels of the latent.
        latent_size: height and width of the latent, both divisible by 8.
        num_classes: C.
    """
    # On the way up UNet2DModel doubles the sides and concatenates the skip connections: sides that were halved
    # with a remainder no longer fit.
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
    """Forward hooks that store f_1..f_4: the features of each down block before it halves the resolution.

    Diffusers' down blocks return features that are already halved. Their second output is the list of skip
    connections, and f_i is the one after the block's last ResNet layer, so the sides are H, H/2, H/4 and H/8 as in
    the paper.
    """

    def __init__(self, unet: UNet2DModel) -> None:
        self._features: list[Tensor] = []
        self._last_resnet = {block: len(block.resnets) - 1 for block in unet.down_blocks}
        for block in unet.down_blocks:
            block.register_forward_hook(self._store)

    def take(self) -> list[Tensor]:
        """Return f_1..f_4 of the last forward pass and clear them, so that they do not outlive its graph."""
        features, self._features = self._features, []
        return features

    def _store(self, block: nn.Module, _: tuple, output: tuple[Tensor, tuple[Tensor, ...]]) -> None:
        self._features.append(output[1][self._last_resnet[block]])


class SketchDecoder(nn.Module):
    """S_pred from f_1..f_4: 1x1 convolutions, concatenation at the latent's size, then transposed convolutions.

    The paper says "concatenates f and performs upsampling via transposed convolution"; log2(factor) of them lead
    from the latent's size to pixels. It is small because the branch is dropped after training.
    """

    def __init__(self, feature_channels: tuple[int, ...], factor: int) -> None:
        super().__init__()
        width = SKETCH_CHANNELS
        # The attributes' names stand in checkpoints.
        self.narrow = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in feature_channels)
        # log2(factor) doublings of the side: one for each pair of widths, and the last one to a single channel.
        widths = [len(feature_channels) * width] + [width] * (factor.bit_length() - 2)
        self.to_pixels = nn.Sequential(
            *[_upsampling(wide, narrow) for wide, narrow in itertools.pairwise(widths)],
            nn.ConvTranspose2d(widths[-1], 1, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return [N, 1, H, W] in [0, 1] from f_1..f_4, finest first."""
        finest, *coarser = (narrow(feature) for narrow, feature in zip(self.narrow, features, strict=True))
        enlarged = [F.interpolate(feature, finest.shape[-2:]) for feature in coarser]
        return self.to_pixels(torch.cat([finest, *enlarged], dim=1))


class SharedDropout(nn.Module):
    """Dropout for a batch that several workers share: each draws the mask of the whole batch and uses its own rows.

    Args:
        probability: of setting an element to 0.
        generator: draws the masks, so that they depend on the step and not on PyTorch's global generator.
        workers: the processes that share a batch.
    """

    def __init__(self, probability: float, generator: torch.Generator, workers: Workers) -> None:
        super().__init__()
        self._keep_probability = 1.0 - probability
        self._generator, self._workers = generator, workers

    def forward(self, features: Tensor) -> Tensor:
        """Return the features; in training, with some set to 0 and the others scaled up."""
        if not self.training or self._keep_probability == 1.0:
            return features
        # Channels last, the layout of the features: in another one their product would be slow.
        whole = (len(features) * self._workers.size, *features.shape[1:])
        mask = torch.empty(
            whole, device=features.device, dtype=features.dtype, memory_format=torch.channels_last
        )
        # One generator for the masks of all blocks, in the order of the forward pass, seeded at each step.
        mask.bernoulli_(self._keep_probability, generator=self._generator)
        return features * self._workers.share(mask).mul_(1.0 / self._keep_probability)


class SketchSupervisedDenoiser(nn.Module):
    """The UNet with everything that only its training needs, as one module for optimiser, moving averages and DDP.

    These are the sketch decoder, a dropout with its own generator, and an embedding of the augmentation, which is
    added to the class embedding and is zero for an unaltered image. As the denoiser knows how a training image was
    augmented, it does not generate augmented images when sampling with zero (Karras et al. 2022, appendix F.2).

    Args:
        unet: the denoiser; hooks are added to it, and `stock_unet` returns a copy without them.
        factor: pixels per latent element, along one side.
        with_sketch: add a sketch decoder.
        num_augmentations: A, length of the vectors that describe augmentations; 0: no augmentation.
        dropout: replaces the dropout of the UNet's residual blocks.
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
        # Passed to the hook by attribute, since UNet2DModel's forward has no argument for it.
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
        """Return the denoiser's prediction [N, C, h, w], and S_pred [N, 1, H, W] or None without the branch.

        Args:
            noisy_NChw: z_t.
            timesteps_N: t.
            labels_N: classes; C is the null class.
            augmentations_NA: rows of `LatentCache.augmentations_MA`. None: unaltered images.
        """
        self._augmentations_NA = augmentations_NA
        predicted = self.unet(noisy_NChw, timesteps_N, class_labels=labels_N).sample
        if self.sketch_decoder is None or self._feature_hooks is None:
            return predicted, None
        return predicted, self.sketch_decoder(self._feature_hooks.take())

    def stock_unet(self, weights: Mapping[str, Tensor]) -> UNet2DModel:
        """Return diffusers' UNet without hooks in evaluation mode, with `weights` by the names of this module."""
        # A new UNet, because a copy of this one would have its hooks and its dropout.
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


def _upsampling(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1), nn.SiLU(inplace=True)
    )
