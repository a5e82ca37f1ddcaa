"""Settings of the images: where they come from, how they are split, which classes are few-shot."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlcas.config.values import Count, Fraction, Positive, PositiveCount, Settings


class PhantomConfig(Settings):
    """The breast-ultrasound phantoms of `--data phantom`."""

    num_images: PositiveCount = 5622
    """Images in all, over the three splits (the paper's Breast-LT-8 has 5622)."""
    imbalance: Annotated[float, Field(ge=1.0)] = 47.98
    """Largest class over smallest class; 1 draws a balanced set."""
    size_px: Annotated[int, Field(ge=16)] = 32
    """Side of the images, in pixels."""


class DatasetConfig(Settings):
    """How images are read, resized, split and thinned."""

    size_px: PositiveCount | None = None
    """Side to which images are resized, in pixels (area filter down, bicubic up). None keeps the source's."""
    channels: Literal[1, 3] | None = None
    """1 converts to gray, 3 to RGB. None keeps the source's."""
    split: tuple[Positive, Positive, Positive] = (0.7, 0.1, 0.2)
    """Shares of train, validation and test, for sources that come without any split."""
    val_from_train: Fraction | None = None
    """Share of train to cut as validation, for sources that have no validation split."""
    test_from_train: Fraction | None = None
    """Share of train to cut as test, for sources that have no test split."""
    imbalance_factor: Annotated[float, Field(ge=1.0)] | None = None
    """Thin the training classes to n_max * factor^(-rank/(C-1)). None keeps them all."""
    window: tuple[float, float] | None = None
    """Values shown as black and white in images of more than 8 bits. None: a DICOM file's own window, else the
    training images' range."""
    seed: Count | None = None
    """Seed of the phantoms, of the splits and of the thinning. None: the run's own, `seed`."""
    phantom: PhantomConfig = PhantomConfig()


class ShotsConfig(Settings):
    """Which classes are many-, medium- and few-shot."""

    source: Literal["train", "test", "total"] = "train"
    """Images that are counted for the rule."""
    many_above: Count = 100
    """A class with more images than this is many-shot."""
    few_below: Count = 20
    """A class with fewer images than this is few-shot."""
    many: tuple[Count, ...] | None = None
    """Explicit list of many-shot classes; with `few`, it replaces the rule."""
    few: tuple[Count, ...] | None = None
    """Explicit list of few-shot classes; with `many`, it replaces the rule."""

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
