"""The plain types and choices in the annotation of a setting, and lists that are written as text."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values of a Literal, kept apart from the types."""

    value: Any


def kinds(annotation: Any) -> set[Any]:
    """Return the plain types and choices in an annotation: Literal[1] | None -> {Choice(1), NoneType}."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return set().union(*(kinds(part) for part in parts))
    if origin is typing.Annotated:
        return kinds(parts[0])
    if origin is typing.Literal:
        return {Choice(value) for value in parts}
    return {origin or annotation}


def listed(annotation: Any, text: str) -> str | list[str]:
    """Return the text `a,b` as a list, if the annotation takes one; else as it is."""
    found = kinds(annotation)
    # A setting that takes one number or several, as `sampler.initial_count`, is several only with a comma.
    if tuple in found and (int not in found or "," in text):
        return [item.strip() for item in text.strip("[]() ").split(",") if item.strip()]
    return text
