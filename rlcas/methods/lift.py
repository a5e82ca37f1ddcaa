"""LIFT (Shi et al. 2024): a frozen CLIP with light adapters, and a cosine head that starts from text."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.clip import CLIP_NORMALISATION, load_clip
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.errors import UserError
from rlcas.losses import logit_adjusted
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective

CROP_MARGIN_PX = 24
"""By how much an image is larger than its five crops at prediction."""


class Adapter(nn.Module):
    """AdaptFormer's bottleneck, s · Up(ReLU(Down(LN(x)))), whose output is 0 before training.

    Args:
        width: of the transformer's block.
        dim: of the bottleneck.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, dim)
        self.up = nn.Linear(dim, width)
        self.scale = nn.Parameter(torch.ones(()))
        # As in the authors' code; with `up` at zero the adapter adds nothing to the CLIP at the start.
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, tokens_NTD: Tensor) -> Tensor:
        """Return [N, T, D]: what is added to the block's tokens."""
        return self.scale * self.up(F.relu(self.down(self.norm(tokens_NTD))))


class Lift(Objective):
    """CLIP's vision transformer with an adapter in each block, under a cosine head; only these two are trained.

    The transformer is neither in the incumbent nor in model.safetensors, which names where it was read from.

    Raises:
        UserError: the weights are not given or cannot be read, or `method.lift.names` does not fit the classes.
    """

    weighs_images = True

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self._settings = meta.method.lift
        clip = load_clip(self._settings.pretrained, texts(meta))
        self._size_px = clip.size_px
        self.clip = clip.vision
        num_blocks = len(self.clip.blocks)
        dim = self._settings.adapter_dim or adapter_dim(meta.num_classes, num_blocks)
        self.adapters = nn.ModuleList(Adapter(clip.width, dim) for _ in range(num_blocks))
        self.head_CD = nn.Parameter(clip.text_CD)

    def train(self, mode: bool = True) -> Lift:
        """Set the mode of the trained parts; the frozen transformer stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits: of the image, or the mean over its four corners and its centre (`tte`)."""
        if not self._settings.tte:
            return self._logits(self._pixels(images_NCHW, self._size_px))
        pixels = self._pixels(images_NCHW, self._size_px + CROP_MARGIN_PX)
        return torch.stack([self._logits(crop) for crop in five_crops(pixels)]).mean(dim=0)

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the logit-adjusted loss (τ = 1)."""
        logits_NC = self._logits(self._pixels(batch.images_NCHW, self._size_px))
        labels_N = batch.labels_N
        return batch.weighted_mean(lambda rows: logit_adjusted(logits_NC[rows], labels_N[rows], counts_C))

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the same loss of the validation images."""
        return logit_adjusted(logits_NC, labels_N, counts_C)

    def features(self, pixels_NCHW: Tensor) -> Tensor:
        """Return [N, D]: the class token after the last norm, before CLIP's projection."""
        tokens_NTD = self.clip.embed(pixels_NCHW)
        for block, adapter in zip(self.clip.blocks, self.adapters, strict=True):
            # The MLP and the adapter both read the residual stream after attention, as AdaptFormer places it.
            attended_NTD = tokens_NTD + block.self_attn(block.layer_norm1(tokens_NTD))[0]
            tokens_NTD = attended_NTD + block.mlp(block.layer_norm2(attended_NTD)) + adapter(attended_NTD)
        return self.clip.norm(tokens_NTD[:, 0])

    def _logits(self, pixels_NCHW: Tensor) -> Tensor:
        # 25 cos(f, w_c): both sides have unit length.
        features_ND = F.normalize(self.features(pixels_NCHW).float())
        return (self._settings.scale * features_ND @ F.normalize(self.head_CD).T).float()

    def _pixels(self, images_NCHW: Tensor, size_px: int) -> Tensor:
        """Return [N, 3, size_px, size_px] normalised for CLIP, from images normalised for the data."""
        # From the data's normalisation to CLIP's; bicubic overshoots [0, 1], hence the clamp.
        pixels = self.meta.normalisation.undo(images_NCHW)
        pixels = F.interpolate(pixels, (size_px, size_px), mode="bicubic", antialias=True).clamp(0, 1)
        return CLIP_NORMALISATION.apply(pixels.expand(-1, 3, -1, -1))


def five_crops(pixels_NCHW: Tensor) -> list[Tensor]:
    """Return the four corners and the centre of square images, each `CROP_MARGIN_PX` smaller.

    torchvision's `five_crop` cannot be traced for export, and takes seconds to import.
    """
    size_px, far, middle = pixels_NCHW.shape[-1] - CROP_MARGIN_PX, CROP_MARGIN_PX, CROP_MARGIN_PX // 2
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    return [pixels_NCHW[..., top : top + size_px, left : left + size_px] for top, left in corners]


def adapter_dim(num_classes: int, num_blocks: int) -> int:
    """Return the authors' width of the bottleneck: the power of 2 at or below C / 2L, and at least 1."""
    return 2 ** max(0, math.floor(math.log2(num_classes / (2 * num_blocks))))


def texts(meta: ClassifierMeta) -> list[str]:
    """Return the text of each class for the text encoder.

    Raises:
        UserError: `method.lift.names` does not have one name for each class.
    """
    settings = meta.method.lift
    names_C = settings.names or meta.class_names
    if len(names_C) != meta.num_classes:
        raise UserError(
            f"method.lift.names {','.join(names_C)} has {len(names_C)} names, but the data has {meta.num_classes} "
            "classes: give one name for each class, with commas"
        )
    return [settings.prompt.replace("{class}", name) for name in names_C]


LIFT = Method(
    title="LIFT",
    source="Shi et al. 2024",
    objective=Lift,
    settings={
        "classifier.optimizer": "sgd",
        "classifier.lr": 0.01,
        "classifier.lr_schedule": "cosine",
        "classifier.weight_decay": 5e-4,
        # It has no BatchNorm.
        "sampler.batch_norm": "all",
    },
    search={"method.lift.adapter_dim": (1, 4, 16)},
    needs="method.lift.pretrained",
)
