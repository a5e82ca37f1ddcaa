"""Images on the device: uint8 at rest, normalised float32 in a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcas.devices import as_tensor
from rlcas.types import Int64, SyntheticSource, Uint8


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of each channel of the training images, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images_NCHW: Uint8) -> Normalisation:
        """Return the exact statistics, from one histogram a channel; a constant channel gets the deviation 1."""
        # Integer counts are exact at any number of threads, and need no float copy of the images.
        histogram_CV = np.stack(
            [
                torch.bincount(as_tensor(images_NCHW[:, c], CPU).reshape(-1), minlength=256).numpy()
                for c in range(images_NCHW.shape[1])
            ]
        )
        share_CV = histogram_CV / histogram_CV.sum(axis=1, keepdims=True)
        values_V = np.arange(256) / 255
        mean_C = share_CV @ values_V
        std_C = np.sqrt((share_CV * (values_V - mean_C[:, None]) ** 2).sum(axis=1))
        return cls(tuple(mean_C.tolist()), tuple(np.where(std_C > 0, std_C, 1.0).tolist()))

    def apply(self, images_NCHW: Tensor) -> Tensor:
        """Return float images in [0, 1] shifted and scaled to mean 0 and standard deviation 1 in each channel."""
        scale_C11 = images_NCHW.new_tensor([1 / std for std in self.std])[:, None, None]
        offset_C11 = images_NCHW.new_tensor(self.mean)[:, None, None]
        return (images_NCHW - offset_C11) * scale_C11

    def undo(self, images_NCHW: Tensor) -> Tensor:
        """Return normalised images as images in [0, 1]: the inverse of `apply`."""
        scale_C11 = images_NCHW.new_tensor(self.std)[:, None, None]
        offset_C11 = images_NCHW.new_tensor(self.mean)[:, None, None]
        return torch.addcmul(offset_C11, images_NCHW, scale_C11)


CPU = torch.device("cpu")


def to_float(images_NCHW: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], in the memory format that they have."""
    return images_NCHW.to(torch.float32).div_(255)


class SyntheticImages:
    """A source's images by class and index, as uint8 tensors on the device.

    The whole source is copied to a GPU once; on a CPU the images of a batch are read from memory or mapped files.
    """

    def __init__(self, source: SyntheticSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        sizes_C = source.class_sizes_C
        self._first_C = np.cumsum(sizes_C) - sizes_C  # where each class begins in `_stored`
        self._stored = self._load(sizes_C) if device.type == "cuda" else None

    def take(self, indices_by_class: list[Int64]) -> list[Tensor]:
        """Return uint8 images, class after class, as tensors to concatenate."""
        if self._stored is None:
            return [
                as_tensor(self._source.images(c, indices), self._device)
                for c, indices in enumerate(indices_by_class)
                if len(indices)
            ]
        flat = np.concatenate([first + i for first, i in zip(self._first_C, indices_by_class, strict=True)])
        return [self._stored[as_tensor(flat, self._device)]] if len(flat) else []

    def _load(self, sizes_C: Int64) -> Tensor:
        chunks = [
            as_tensor(self._source.images(c, np.arange(size)), self._device)
            for c, size in enumerate(sizes_C.tolist())
            if size
        ]
        return torch.cat(chunks)
