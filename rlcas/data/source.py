"""The output of a reader: labelled splits whose images are decoded on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Float64, Int64

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
class Survey:
    """Facts about each image of a split, from one pass over its pixels (`rlcas.data.survey`)."""

    digests: list[bytes]
    """[N] hash of shape, dtype and exact pixels."""
    shapes: list[tuple[int, ...]]
    """[N] shapes."""
    lows_N: Float64
    highs_N: Float64
    """[N] range of the values of images of more than 8 bits; NaN for images of 8 bits."""

    def take(self, indices: Int64) -> Survey:
        """Return the facts about the images at `indices`."""
        return Survey(
            digests=[self.digests[i] for i in indices],
            shapes=[self.shapes[i] for i in indices],
            lows_N=self.lows_N[indices],
            highs_N=self.highs_N[indices],
        )

    @property
    def num_wide(self) -> int:
        """Return the number of images of more than 8 bits."""
        return int(np.isfinite(self.lows_N).sum())

    @property
    def wide_range(self) -> Window:
        """Return the lowest and highest value of the images of more than 8 bits, of which there is one at least."""
        return float(np.nanmin(self.lows_N)), float(np.nanmax(self.highs_N))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSplit:
    """One split of a source: its labels in memory, its images read on demand."""

    labels_N: Int64
    names: Sequence[str]
    """[N] names of the images in messages and notes: the file, or `train 12`."""
    open_images: Callable[[], Sequence[Pixels] | Pixels]
    patients_N: NDArray[np.str_] | None = None
    read_header_ids: Callable[[], Iterator[str]] | None = None
    """Yields the patient that each file's own header names, empty for none; for a note. None: there are no files."""
    survey: Survey | None = None
    """None until `rlcas.data.survey` has read the images."""

    @property
    def surveyed(self) -> Survey:
        """Return the survey of a split that has one."""
        assert self.survey is not None
        return self.survey

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
            survey=None if self.survey is None else self.survey.take(indices),
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


def joined(splits: Sequence[RawSplit]) -> RawSplit:
    """Return the images of all splits as one; patients are kept if every split has them."""
    patients = [split.patients_N for split in splits if split.patients_N is not None]
    return RawSplit(
        labels_N=np.concatenate([split.labels_N for split in splits]),
        names=[name for split in splits for name in split.names],
        open_images=lambda: Chained([split.open_images() for split in splits]),
        patients_N=np.concatenate(patients) if len(patients) == len(splits) else None,
    )


class Chained(Sequence[Pixels]):
    """The images of several sequences, one after another, decoded one by one on access."""

    def __init__(self, parts: Sequence[Sequence[Pixels] | Pixels]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        """Return the number of images of all parts."""
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        """Return image `index`, counted over all parts."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - self._ends[part] + len(self._parts[part])]


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
