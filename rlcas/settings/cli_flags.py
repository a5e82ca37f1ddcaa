"""Settings as command-line flags: their keys and types, the parsing of their values, the error for unknown ones."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rlcas.config import FileConfig, RunConfig

SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting as a command-line flag."""

    key: str
    """Dotted, without the two dashes: sampler.k"""
    help: str
    annotation: Any
    default: Any


def flags(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Flag]:
    """Yield every setting of `model` and its sections, in the order of declaration."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from flags(field.annotation, f"{key}.")
        else:
            yield Flag(key, field.description or "", field.annotation, field.default)


def kinds_of(key: str) -> set[Any]:
    """Return the plain types and choices of a run's setting; an empty set if there is no such setting."""
    return kinds_in(RunConfig, key)


def kinds_in(model: type[BaseModel], key: str) -> set[Any]:
    """Return the plain types and choices of a setting of `model`; an empty set if there is no such setting."""
    return next((_kinds(flag.annotation) for flag in flags(model) if flag.key == key), set())


def unknown_setting(key: str) -> str:
    """Return the error message for an unknown setting, with the most similar known one."""
    known = [flag.key for flag in flags(FileConfig)]
    leaf = key.rpartition(".")[2]
    same_leaf = [flag for flag in known if flag.rpartition(".")[2] == leaf]
    close = same_leaf or difflib.get_close_matches(key, known, n=1) or [flag for flag in known if leaf in flag]
    fix = f"did you mean {close[0]}?" if close else "`rlcas run --help` lists the settings"
    return f"unknown setting {key[:SHOWN_CHARACTERS]}: {fix}"


def parse(key: str, text: Any) -> Any:
    """Return a flag's text as the value for pydantic to check: none as None, a,b as a list, a choice as its value."""
    if not isinstance(text, str):
        return text
    kinds = kinds_in(FileConfig, key)
    if type(None) in kinds and text.lower() in ("none", "null"):
        return None
    # A setting that takes one number or several, as `sampler.initial_count`, is several only with a comma.
    if tuple in kinds and (int not in kinds or "," in text):
        return [item.strip() for item in text.strip("[]() ").split(",") if item.strip()]
    # pydantic does not take the text "1" for Literal[1]. Other texts stay: pydantic parses numbers and booleans
    # itself.
    return next((kind.value for kind in kinds if isinstance(kind, _Choice) and str(kind.value) == text), text)


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of the values of a Literal, kept apart from the types."""

    value: Any


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types and choices in an annotation: Literal[1] | None -> {_Choice(1), NoneType}."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return set().union(*(_kinds(part) for part in parts))
    if origin is typing.Annotated:
        return _kinds(parts[0])
    if origin is typing.Literal:
        return {_Choice(value) for value in parts}
    return {origin or annotation}
