"""Settings of the images: where they come from, how they are split, which classes are few-shot."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rlcas.config.values import Count, Fraction, Positive, PositiveCount, Settings

Role = Literal["path", "label", "patient", "split"]
"""What a column of a table may be."""
Level = Literal["class", "patient", "any"]
"""What a level of folders may be."""
Frame = (
    Annotated[
        Annotated[Literal["first", "middle"], Tag("word")] | Annotated[PositiveCount, Tag("number")],
        # Named branches: the error is then one and not one for each.
        Discriminator(lambda value: "word" if str(value).isalpha() else "number"),
    ]
    | None
)
"""Which frame or page of a file that has several, by number from 1; None: such files are refused."""
NONE = ("none", "null", "")
"""Texts for no mapping at all."""


def _mapping(given: Any) -> Any:
    """Return the text A=X,B=Y, as a flag has it, as a mapping; other values stay."""
    if not isinstance(given, str):
        return given or {}
    parts = [part.partition("=") for part in given.split(",") if given.strip().lower() not in NONE]
    if wrong := [key for key, equals, _ in parts if not equals]:
        raise _fault(f"{wrong[0].strip()!r} has no =; write NAME=VALUE, separated by commas")
    if repeated := [
        key for i, (key, _, _) in enumerate(parts) if key in [before for before, _, _ in parts[:i]]
    ]:
        raise _fault(f"{repeated[0].strip()!r} is given twice; keep one")
    return {key.strip(): value.strip() for key, _, value in parts}


def _fault(text: str) -> PydanticCustomError:
    # Not a ValueError, whose text would have to name the setting: these checks serve several.
    return PydanticCustomError("form", "{fault}", {"fault": text})


def _regex(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise _fault(f"it is no regular expression ({error})") from None
    if groups != 1:
        raise _fault(f"it has {groups} groups in parentheses; write one, around the patient's id")
    return pattern


Mapped = BeforeValidator(_mapping)


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
    columns: Annotated[dict[Role, str], Mapped] = {}  # noqa: RUF012 - pydantic copies it
    """Columns of a `csv:` table: path=image_id,label=dx,patient=lesion_id,split=fold. A column by its name, or by its
    number from 1 in a list without a header; label=A+B+C: a column of 0 and 1 for each class; patient=none, split=none:
    there are none. What is not named is recognised by common names."""
    images: str | None = None
    """Where the images of a `csv:` table are, from the table's folder: a pattern such as 'part_*/{image_id}.jpg', with
    columns in braces ({path}: the path column); without braces, a folder. None: the path column says it."""
    join: str | None = None
    """A second table, from the first one's folder, whose columns are added: its lines are found by the first table's
    path column, which it has under the same name."""
    unlabelled: Literal["refuse", "leave_out"] = "refuse"
    """Lines of a `csv:` table without a label: an error, or left out."""
    levels: tuple[Level, ...] = ("class",)
    """Levels of folders above the images of `folder:`: class; any,class (SUPERCLASS/CLASS/*); class,patient."""
    masks: Literal["leave_out", "keep"] = "leave_out"
    """Files that are masks of a picture beside them: X_mask.png, X_tumor.png, X_segmentation.png beside X.png; folders
    of masks beside those of pictures."""
    patient_pattern: Annotated[str, AfterValidator(_regex)] | None = None
    """Regular expression whose one group, in an image's file name without suffix, is the patient: '^(.+)_' for
    12_left.jpeg. If it matches no file name, the path is searched: 'patient([0-9]+)/' for patient7/view1.jpg. An image
    that it does not match is a patient of its own."""
    merge: Annotated[dict[str, str | tuple[str, ...]], Mapped] = {}  # noqa: RUF012 - pydantic copies it
    """Classes that become one: rare=cyst+adenosis, separated by commas."""
    drop: tuple[str, ...] = ()
    """Classes that are left out."""
    phantom: PhantomConfig = PhantomConfig()

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if levels.count("class") != 1 or levels.count("patient") > 1:
            raise _fault("name class once and patient once at most, such as any,class or class,patient")
        return levels

    @model_validator(mode="after")
    def _check_patients(self) -> DatasetConfig:
        if self.patient_pattern and (self.columns.get("patient", "none") != "none" or "patient" in self.levels):
            raise ValueError(
                f"dataset.patient_pattern {self.patient_pattern} names the patient, and so does dataset.columns or "
                "dataset.levels: keep one of them"
            )
        return self


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
