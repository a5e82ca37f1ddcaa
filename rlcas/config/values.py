"""The types of settings: numbers in a range, paths, and the frozen group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from rlcas.config.kinds import listed
from rlcas.credentials import WHERE_THEY_BELONG, has_credentials, without_credentials

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(gt=0.0, le=1.0)]
Percentage = Annotated[float, Field(ge=0.0, le=100.0)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Niceness = Annotated[int, Field(ge=0, le=19)]
NonNegative = Annotated[float, Field(ge=0.0)]
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
# The networks normalise channels in 8 groups.
Width = Annotated[int, Field(ge=8, multiple_of=8)]
Prompt = Annotated[str, Field(pattern=r"\{class\}")]
"""A text with {class} in place of a class's name."""
Counts = Annotated[
    Annotated[Count, Tag("one")] | Annotated[tuple[Count, ...], Tag("each")],
    # Named branches: pydantic then checks the one that is meant, and its error is one and not one for each.
    Discriminator(lambda value: "each" if isinstance(value, list | tuple) else "one"),
]
"""One count for all classes, or one for each."""

CREDENTIALS = "credentials"
"""pydantic's name for the error of a password in an address."""


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error, and so is inf or nan, or a password in an address.

    A list may be text with commas, as a flag has it, wherever it is written.
    """

    # use_attribute_docstrings makes the text under a field its help; inf and nan would pass a mere lower limit.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            key: listed(field.annotation, value)
            if isinstance(value, str) and (field := cls.model_fields.get(key))
            else value
            for key, value in given.items()
        }

    # Before anything else: pydantic's own errors quote the values that they refuse.
    @model_validator(mode="before")
    @classmethod
    def _refuse_credentials(cls, given: Any) -> Any:
        for key, value in given.items() if isinstance(given, dict) else ():
            # A group checks its own settings, and the error then has their full names.
            for text in _texts(value) if not cls._is_group(key) else ():
                if has_credentials(text):
                    # A type of its own, by which `_one_line` knows to put the section's name before the
                    # message.
                    raise PydanticCustomError(CREDENTIALS, "{fault}", {"fault": _fault_of(key, text)})
        return given

    @classmethod
    def _is_group(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return (
            field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        )


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a value: itself, or its members."""
    members = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    )
    yield from (str(member) for member in members if isinstance(member, str | Path))


def _fault_of(key: str, text: str) -> str:
    return (
        f"{key} {without_credentials(text)} has a password or key in its address, which the run's folder would show: "
        f"{WHERE_THEY_BELONG}"
    )
