"""Settings as command-line flags: their keys and types, the parsing of their values, the error for unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rlcas.config import FileConfig, RunConfig
from rlcas.config.kinds import Choice
from rlcas.config.kinds import kinds as kinds_in_annotation

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
    return next((kinds_in_annotation(flag.annotation) for flag in flags(model) if flag.key == key), set())


def switch_words(key: str) -> str | None:
    """Return the words that a setting takes which is on, off or one of some choices; None if it is none such."""
    kinds = kinds_in(FileConfig, key)
    choices = sorted(str(kind.value) for kind in kinds if isinstance(kind, Choice))
    if bool not in kinds or not choices:
        return None
    *others, last = ["true", "false", *choices]
    return f"{', '.join(others)} or {last}"


def unknown_setting(key: str) -> str:
    """Return the error message for an unknown setting, with the most similar known one."""
    known = [flag.key for flag in flags(FileConfig)]
    leaf = key.rpartition(".")[2]
    same_leaf = [flag for flag in known if flag.rpartition(".")[2] == leaf]
    close = same_leaf or difflib.get_close_matches(key, known, n=1) or [flag for flag in known if leaf in flag]
    fix = f"did you mean {close[0]}?" if close else "`rlcas run --help` lists the settings"
    return f"unknown setting {key[:SHOWN_CHARACTERS]}: {fix}"


def parse(key: str, text: Any) -> Any:
    """Return a flag's text as the value for pydantic to check: none as None, a choice as its value."""
    if not isinstance(text, str):
        return text
    kinds = kinds_in(FileConfig, key)
    if type(None) in kinds and text.lower() in ("none", "null"):
        return None
    # pydantic does not take the text "1" for Literal[1]. Other texts stay: pydantic parses numbers and booleans
    # itself.
    return next((kind.value for kind in kinds if isinstance(kind, Choice) and str(kind.value) == text), text)
