"""What a reader hands over: labelled splits whose images are decoded only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Int64

Pixels = NDArray[Any]
"""[H, W] or [H, W, 3], uint8 or any wider values."""

Window = tuple[float, float]
"""Values shown as black and as white."""

SplitName = Literal["train", "val", "test", "all"]
"""`all` stands alone: a source that comes without any split."""

NUM_SHOWN = 3
"""Examples in a note."""

SPLIT_ALIASES: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSplit:
    """One split as its source has it: labels at once, images on demand."""

    labels_N: Int64
    names: Sequence[str]
    """[N] how messages and notes speak of an image: its file, or `train 12`."""
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
    """A data set as it is found: by name, npz, folder or table."""

    name: str
    where: str
    """The file or folder, for messages."""
    splits: Mapping[SplitName, RawSplit]
    class_names: tuple[str, ...] | None = None
    """None: the source has numbers only."""
    notes: tuple[str, ...] = field(default=())


class Taken(Sequence[Pixels]):
    """Some images of a sequence, decoded one by one as they are asked for."""

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
    """Return how many there are, with the first few: `5 (a, b, c, …)`."""
    shown = ", ".join(items[:NUM_SHOWN]) + (", …" if len(items) > NUM_SHOWN else "")
    return f"{len(items)} ({shown})"
