"""Sketches: edge maps of images, the target S_gt of the sketch loss (paper, section 2.1)."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from rlcas.config import SynthConfig
from rlcas.devices import as_tensor
from rlcas.errors import UserError
from rlcas.registry import lookup
from rlcas.types import Float32, Uint8
from synth.pidinet import SMALLEST_SIDE_PX, convert, load_pidinet, show_licence_notice

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHUNK_PIXELS = 64 * 64 * 64
"""Pixels of the images that are drawn together, which bounds memory."""
PX_PER_RADIUS = 18.0  # at 128 px, a radius of 7 px found the lesions of the phantoms best
SMALLEST_RADIUS_PX = 1.5


class SketchExtractor(Protocol):
    """A function from images to their sketches."""

    @overload
    def __call__(self, images_NCHW: Uint8) -> Float32: ...
    @overload
    def __call__(self, images_NCHW: Tensor) -> Tensor: ...
    def __call__(self, images_NCHW: Uint8 | Tensor) -> Float32 | Tensor:
        """Return [N, 1, H, W] float32 in [0, 1]: NumPy for NumPy, a tensor on the same device for a tensor."""
        ...


class EdgeExtractor:
    """An extractor from a function of images [N, 1 or 3, H, W] float32 in [0, 1] to edges [N, 1, H, W]."""

    def __init__(self, edges_of: Callable[[Tensor], Tensor]) -> None:
        self._edges_of = edges_of

    @overload
    def __call__(self, images_NCHW: Uint8) -> Float32: ...
    @overload
    def __call__(self, images_NCHW: Tensor) -> Tensor: ...
    @torch.no_grad()
    def __call__(self, images_NCHW: Uint8 | Tensor) -> Float32 | Tensor:
        """Return the sketches of uint8 images [N, C, H, W], C 1 or 3: see `SketchExtractor`.

        Raises:
            UserError: the images have another dtype or shape.
        """
        if not isinstance(images_NCHW, Tensor):
            return self(as_tensor(images_NCHW, torch.device("cpu"))).numpy()
        _check(images_NCHW)
        height, width = images_NCHW.shape[2:]
        chunks = images_NCHW.split(max(1, CHUNK_PIXELS // (height * width)))
        # TF32, a GPU's default in convolutions, changes PiDiNet's maps by up to 0.02.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            maps = [self._edges_of(chunk.float() / 255.0) for chunk in chunks]
        # Scharr's magnitude exceeds 1 at the corner of a white area on black: both gradients are 13/16.
        return torch.cat(maps).clamp_(0.0, 1.0)


def ratio_of_averages(
    *, radius_px: float | None = None, num_orientations: int = 8, floor: float = 0.02
) -> EdgeExtractor:
    """Return the edge detector for speckle: 1 - the smaller ratio of the means on the two sides of a pixel.

    Under multiplicative noise, as in ultrasound, its rate of false edges does not depend on brightness, while a
    gradient's does (Touzi, Lopes and Bousquet 1988). The maximum over the orientations is taken.

    Args:
        radius_px: radius of the half-windows, Gaussian with sigma = radius/2. None: side/18, at least 1.5.
        num_orientations: directions in [0, π).
        floor: gray level in [0, 1] added to both means, so that the noise of nearly black regions has no edges.
    """

    def edges(images_NCHW: Tensor) -> Tensor:
        gray_N1HW = _gray(images_NCHW)
        radius = radius_px or max(SMALLEST_RADIUS_PX, min(gray_N1HW.shape[2:]) / PX_PER_RADIUS)
        kernels = half_windows(radius, num_orientations).to(gray_N1HW.device)
        reach = kernels.shape[-1] // 2
        # Zeros would draw an edge along the border of every bright image.
        padded = F.pad(gray_N1HW, (reach,) * 4, mode="reflect")
        means_N2OHW = F.conv2d(padded, kernels).unflatten(1, (2, num_orientations)) + floor
        # [N, 2 sides, orientations, H, W]; the smaller ratio is the same whichever side is brighter.
        low, high = means_N2OHW.amin(dim=1), means_N2OHW.amax(dim=1)
        return (1.0 - low / high).amax(dim=1, keepdim=True)

    return EdgeExtractor(edges)


def scharr() -> EdgeExtractor:
    """Return the gradient magnitude by Scharr's 3x3 kernels; 1 is a step from black to white."""
    smooth, derive = torch.tensor([3.0, 10.0, 3.0]) / 16.0, torch.tensor([-1.0, 0.0, 1.0])
    kernels_2133 = torch.stack([torch.outer(smooth, derive), torch.outer(derive, smooth)])[:, None]

    def edges(images_NCHW: Tensor) -> Tensor:
        padded = F.pad(_gray(images_NCHW), (1,) * 4, mode="reflect")
        return F.conv2d(padded, kernels_2133.to(padded.device)).norm(dim=1, keepdim=True)

    return EdgeExtractor(edges)


def pidinet(*, weights: Path | str | None = None, variant: str | None = None) -> EdgeExtractor:
    """Return the edge detector of the paper: a Pixel Difference Network with its authors' weights.

    Args:
        weights: the checkpoint; see `load_pidinet`.
        variant: `full`, `small`, `tiny`, or one of these with `-l`. None: the one that the checkpoint holds.

    Raises:
        UserError: as `load_pidinet`; the extractor also raises it for images with a side below 8 px.
    """
    network = convert(load_pidinet(weights, variant)).to(memory_format=torch.channels_last)
    show_licence_notice()

    def edges(images_NCHW: Tensor) -> Tensor:
        if min(images_NCHW.shape[2:]) < SMALLEST_SIDE_PX:
            raise UserError(
                f"sketch pidinet halves images three times, so sides of {list(images_NCHW.shape[2:])} px are too "
                f"small: resize to {SMALLEST_SIDE_PX} px at least with dataset.size_px, or take another sketch"
            )
        # Gray images [N, 1, H, W] become three equal channels by broadcasting against the [1, 3, 1, 1] means.
        device = images_NCHW.device
        centred = images_NCHW - _per_channel(IMAGENET_MEAN, device)
        # Of five maps, the last is the fused one.
        return network.to(device)(centred / _per_channel(IMAGENET_STD, device))[:, -1:]

    return EdgeExtractor(edges)


class SketchFactory:
    """An entry of SKETCHES: called with settings, it returns an extractor; called with images, their sketches.

    Example:
        SKETCHES["scharr"](images_NCHW)                  # the sketches of the images
        SKETCHES["ratio_of_averages"](radius_px=3.0)     # an extractor, to be called with images
    """

    def __init__(self, factory: Callable[..., SketchExtractor]) -> None:
        self._factory = factory
        functools.update_wrapper(self, factory)  # `sketch_extractor` reads the settings from the signature

    @overload
    def __call__(self, images_NCHW: Uint8, /, **settings: Any) -> Float32: ...
    @overload
    def __call__(self, images_NCHW: Tensor, /, **settings: Any) -> Tensor: ...
    @overload
    def __call__(self, /, **settings: Any) -> SketchExtractor: ...
    def __call__(
        self, images_NCHW: Uint8 | Tensor | None = None, /, **settings: Any
    ) -> Float32 | Tensor | SketchExtractor:
        """Return the extractor with these settings, or with images their sketches."""
        extractor = self._factory(**settings)
        return extractor if images_NCHW is None else extractor(images_NCHW)


SKETCHES: dict[str, SketchFactory] = {
    "pidinet": SketchFactory(pidinet),
    "ratio_of_averages": SketchFactory(ratio_of_averages),
    "scharr": SketchFactory(scharr),
}
"""Sketches by name; one from outside is named package.module:factory and is called with settings only."""


def sketch_extractor(settings: SynthConfig) -> SketchExtractor:
    """Return the extractor named in the settings.

    Raises:
        UserError: its name is unknown, or weights are set for one that has none.
    """
    factory = lookup(settings.sketch, SKETCHES, "synth.sketch")
    if settings.sketch_weights is None:
        return factory()
    if "weights" not in inspect.signature(factory).parameters:
        raise UserError(
            f"synth.sketch_weights is {settings.sketch_weights}, but the sketch {settings.sketch!r} takes none: "
            "leave it out"
        )
    return factory(weights=settings.sketch_weights)


def half_windows(radius_px: float, num_orientations: int) -> Tensor:
    """Return [2 * orientations, 1, k, k]: Gaussian half-discs of sum 1, first sides of all, then second sides.

    The line between the sides belongs to neither; the threshold of 1e-9 px absorbs rounding of the rotation.
    """
    reach = math.ceil(radius_px)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    gaussian = torch.exp(-2.0 * (x**2 + y**2) / radius_px**2)  # exp(-r² / 2σ²) with σ = radius / 2
    # Half a turn is enough: beyond it, the two sides only change places.
    angles = [math.pi * k / num_orientations for k in range(num_orientations)]
    across = torch.stack([x * math.cos(angle) + y * math.sin(angle) for angle in angles])
    windows = gaussian * torch.cat([across > 1e-9, across < -1e-9])
    return (windows / windows.sum(dim=(1, 2), keepdim=True))[:, None].float()


def _gray(images_NCHW: Tensor) -> Tensor:
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    return (images_NCHW * _per_channel(GRAY_WEIGHTS, images_NCHW.device)).sum(dim=1, keepdim=True)


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _check(images_NCHW: Tensor) -> None:
    """Check dtype and shape.

    Raises:
        UserError: the images are not uint8 [N, 1 or 3, H, W].
    """
    if images_NCHW.dtype != torch.uint8 or images_NCHW.ndim != 4 or images_NCHW.shape[1] not in (1, 3):
        raise UserError(
            f"a sketch is made of uint8 images [N, 1 or 3, H, W], not of {images_NCHW.dtype} "
            f"{list(images_NCHW.shape)}: convert them first"
        )
