"""Light augmentation of a batch: kornia's geometry with our own random numbers.

kornia's own `AugmentationSequential` draws from torch's global generator and takes 1.7 to 2.7 times as long.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

MAX_ROTATION_DEGREES = 10.0
MAX_SHIFT = 0.05
"""As a share of the image's side."""
MAX_SCALE_CHANGE = 0.1
MAX_BRIGHTNESS_CHANGE = 0.1
MAX_CONTRAST_CHANGE = 0.1

NUM_DRAWS = 7
"""Random numbers of one image: mirror, angle, scale, two shifts, brightness and contrast."""


class Augment:
    """Augmentation in two steps: draw random numbers for a batch, then apply them to its images."""

    def __init__(self, kind: Literal["none", "light"]) -> None:
        self.kind = kind

    def draw(self, num_images: int, seed: int) -> Tensor:
        """Return [num_images, 7] float32, uniform in [-1, 1), on the CPU, so that every device has the same numbers."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(num_images, NUM_DRAWS, generator=generator).mul_(2).sub_(1)

    def apply(self, images_NCHW: Tensor, draws_N7: Tensor) -> Tensor:
        """Return `images_NCHW` (float, in [0, 1]) changed by `draws_N7`, in [0, 1] again."""
        if self.kind == "none":
            return images_NCHW
        draws_N7 = draws_N7.to(images_NCHW)
        moved_NCHW = move(images_NCHW, draws_N7[:, :5])
        brightness_N1, contrast_N1 = draws_N7[:, 5:].split(1, dim=1)
        shift_N = (MAX_BRIGHTNESS_CHANGE * brightness_N1)[..., None, None]
        factor_N = (1 + MAX_CONTRAST_CHANGE * contrast_N1)[..., None, None]
        # shift + factor x image in one pass; the result is a new tensor, so it may be clamped in place.
        return torch.addcmul(shift_N, moved_NCHW, factor_N).clamp_(0, 1)


def move(images_NCHW: Tensor, draws_N5: Tensor) -> Tensor:
    """Mirror, rotate, scale and shift float images; pixels from outside repeat the image's border.

    Args:
        images_NCHW: float images.
        draws_N5: in [-1, 1): a negative first one mirrors left and right; then come the angle, the scale, and the
            shifts to the right and down.
    """
    from kornia.geometry.transform import get_affine_matrix2d, warp_affine

    height, width = images_NCHW.shape[-2:]
    mirror_N, angle_N, scale_N, shift_x_N, shift_y_N = draws_N5.unbind(dim=1)
    size_2 = images_NCHW.new_tensor([width, height])
    scale_N = 1 + MAX_SCALE_CHANGE * scale_N
    matrix_N33 = get_affine_matrix2d(
        translations=MAX_SHIFT * torch.stack([shift_x_N, shift_y_N], dim=1) * size_2,
        # The centre of pixels 0..W-1, as align_corners=True counts: a mirrored image covers itself exactly.
        center=((size_2 - 1) / 2).expand(len(images_NCHW), 2),
        # A negative scale along x mirrors, so that the image is resampled once for all of these changes.
        scale=torch.stack([torch.where(mirror_N < 0, -scale_N, scale_N), scale_N], dim=1),
        angle=MAX_ROTATION_DEGREES * angle_N,
    )
    return warp_affine(
        images_NCHW, matrix_N33[:, :2], (height, width), padding_mode="border", align_corners=True
    )
