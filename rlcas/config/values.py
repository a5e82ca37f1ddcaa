"""What settings are made of: numbers in a range, paths, and the frozen group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]
Prompt = Annotated[str, Field(pattern=r"\{class\}")]
"""A text with {class} where a class's name shall stand."""
Counts = Annotated[
    Annotated[Count, Tag("one")] | Annotated[tuple[Count, ...], Tag("each")],
    Discriminator(lambda value: "each" if isinstance(value, list | tuple) else "one"),
]
"""One count for all classes, or one for each."""


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error, and so is inf or nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
