"""The output of a reader: labelled splits whose images are decoded on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Int64

Pixels = NDArray[Any]
"""[H, W] or [H, W, 3], uint8 or wider values."""

Window = tuple[float, float]
"""Values shown as black and as white."""

SplitName = Literal["train", "val", "test", "all"]
"""`all` is the only split of a source that comes without splits."""

NUM_SHOWN = 3
"""Number of examples in a note."""

SPLIT_ALIASES: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSplit:
    """One split of a source: its labels in memory, its images read on demand."""

    labels_N: Int64
    names: Sequence[str]
    """[N] names of the images in messages and notes: the file, or `train 12`."""
    open_images: Callable[[], Sequence[Pixels] | Pixels]
    patients_N: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def take(self, indices: Int64) -> RawSplit:
        """Return the images at `indices`, still undecoded."""
        return RawSplit(
            labels_N=self.labels_N[indices],
            names=[self.names[i] for i in indices],
            open_images=lambda: Taken(self.open_images(), indices),
            patients_N=None if self.patients_N is None else self.patients_N[indices],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set as it was read: by name, or from npz, folder or table."""

    name: str
    where: str
    """The file or folder, for messages."""
    splits: Mapping[SplitName, RawSplit]
    class_names: tuple[str, ...] | None = None
    """None: the source has only numbers as labels."""
    notes: tuple[str, ...] = field(default=())


class Taken(Sequence[Pixels]):
    """Some images of a sequence, decoded one by one on access."""

    def __init__(self, images: Sequence[Pixels] | Pixels, indices: Int64) -> None:
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        """Return the number of images taken."""
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        """Return image `index` of those taken."""
        return self._images[self._indices[index]]


def counted(items: Sequence[str]) -> str:
    """Return the number of items, with the first few: `5 (a, b, c, …)`."""
    shown = ", ".join(items[:NUM_SHOWN]) + (", …" if len(items) > NUM_SHOWN else "")
    return f"{len(items)} ({shown})"
