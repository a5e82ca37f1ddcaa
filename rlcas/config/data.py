"""Settings of the images: where they come from, how they are split, which classes are few-shot."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from rlcas.config.values import Count, Fraction, Positive, PositiveCount, Settings

Frame = (
    Annotated[
        Annotated[Literal["first", "middle"], Tag("word")] | Annotated[PositiveCount, Tag("number")],
        # Named branches: the error is then one and not one for each.
        Discriminator(lambda value: "word" if str(value).isalpha() else "number"),
    ]
    | None
)
"""Which frame or page of a file that has several, by number from 1; None: such files are refused."""


class PhantomConfig(Settings):
    """The breast-ultrasound phantoms of `--data phantom`."""

    num_images: PositiveCount = 5622
    """Images in all three splits together (the paper's Breast-LT-8 has 5622)."""
    # That of the paper's Breast-LT-8.
    imbalance: Annotated[float, Field(ge=1.0)] = 47.98
    """Images of the largest class divided by those of the smallest; 1: a balanced set."""
    size_px: Annotated[int, Field(ge=16)] = 32
    """Side of the images, in pixels."""


class DatasetConfig(Settings):
    """How images are read, resized, split and subsampled."""

    size_px: PositiveCount | None = None
    """Side to which images are resized, in pixels (area filter down, bicubic up). None: the source's own."""
    channels: Literal[1, 3] | None = None
    """1 converts to gray, 3 to RGB. None: the source's own."""
    split: tuple[Positive, Positive, Positive] = (0.7, 0.1, 0.2)
    """Shares of train, validation and test, for sources without any split."""
    val_from_train: Fraction | None = None
    """Share of the training images to use as validation, for sources without a validation split."""
    test_from_train: Fraction | None = None
    """Share of the training images to use as test, for sources without a test split."""
    imbalance_factor: Annotated[float, Field(ge=1.0)] | None = None
    """Subsample the training classes to n_max * factor^(-rank/(C-1)) images. None: keep all images."""
    window: tuple[float, float] | None = None
    """Values shown as black and white in images of more than 8 bits. None: a DICOM file's own window, else the
    range of the training images."""
    frame: Frame = None
    """Which frame is read of a DICOM, TIFF or GIF file of several: first, middle, or its number from 1; files of one
    frame stay as they are. None: files of several frames are refused."""
    seed: Count | None = None
    """Seed of the phantoms, the splits and the subsampling. None: the run's `seed`."""
    phantom: PhantomConfig = PhantomConfig()


class ShotsConfig(Settings):
    """Which classes are many-, medium- and few-shot."""

    source: Literal["train", "test", "total"] = "train"
    """Which images of a class are counted."""
    many_above: Count = 100
    """A class with more images than this is many-shot."""
    few_below: Count = 20
    """A class with fewer images than this is few-shot."""
    many: tuple[Count, ...] | None = None
    """List of the many-shot classes; together with `few` it replaces the counting."""
    few: tuple[Count, ...] | None = None
    """List of the few-shot classes; together with `many` it replaces the counting."""

    @model_validator(mode="after")
    def _check(self) -> ShotsConfig:
        if (self.many is None) != (self.few is None):
            raise ValueError(f"shots.many is {self.many} and shots.few is {self.few}: give both or neither")
        if self.few_below > self.many_above + 1:
            raise ValueError(
                f"shots.few_below {self.few_below} overlaps shots.many_above {self.many_above}: "
                "set few_below to many_above + 1 at most"
            )
        return self
