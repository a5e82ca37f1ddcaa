"""Settings in YAML files, read with bounds on what a file may hold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlcas.errors import UserError

MOST_BYTES = 1 << 16
"""Of a file of settings, which has some kilobytes; PyYAML takes seconds for this many."""
DEEPEST = 50
"""Levels of a file of settings, which has some three; PyYAML takes hours for as many brackets as `MOST_BYTES`."""
MOST_VALUES = 100_000
ODD_VALUES = (ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises beside its own error: of dates such as 2026-13-01, of tags such as !!int, of deep nests."""


def read_yaml(path: Path, named_by: str = "") -> dict[str, Any]:
    """Return the settings of a YAML file, nested; `named_by` is the flag that named it.

    Raises:
        UserError: the file is missing, no YAML, or no mapping.
    """
    try:
        if path.is_fifo() and Path("/dev") not in path.parents:  # there the shell has what is piped to it
            raise UserError(f"{named_by}{path} is a pipe, which may never end: name a YAML file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(
                f"{named_by}{path} has {size} bytes, settings {MOST_BYTES} at most: name another file"
            )
        content = _ShallowLoader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise UserError(
            f"--config {path} cannot be read: {error.strerror}: name an existing YAML file"
        ) from None
    except UserError:
        raise
    except (yaml.YAMLError, *ODD_VALUES) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{named_by}{path} is not YAML: {reason}: mend the file") from None
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds {type(content).__name__}, not settings"
        raise UserError(f"--config {path} {found}: write lines like `seed: 1`")
    if not _is_small(content):
        raise UserError(
            f"{named_by}{path} holds over {MOST_VALUES} values, by aliases of aliases: write them out"
        )
    if half := _half_a_character(content):
        raise UserError(
            f"{named_by}{path} is not YAML: {half} holds half a character: write it whole, or by \\U and its number"
        )
    return nested_of({str(key): value for key, value in content.items()}, str(path))


class _ShallowLoader(yaml.SafeLoader):
    """Refuses what nests deep at the first level too many."""

    def fetch_more_tokens(self) -> None:
        if self.flow_level + len(self.indents) > DEEPEST:
            raise yaml.YAMLError(f"it nests deeper than {DEEPEST} levels")
        super().fetch_more_tokens()


def _is_small(content: Any) -> bool:
    """Return whether it holds no more values than a file of settings may, each alias counted."""
    return sum(1 for _ in itertools.islice(_values_in(content), MOST_VALUES + 1)) <= MOST_VALUES


def _half_a_character(content: Any) -> str | None:
    """Return a text that is none, as YAML's escapes of UTF-16 can write it."""
    texts = (value for value in _values_in(content) if isinstance(value, str))
    return next((ascii(text[:40]) for text in texts if any("\ud800" <= c <= "\udfff" for c in text)), None)


def _values_in(content: Any) -> Iterator[Any]:
    """Yield what a file of settings holds, keys included."""
    waiting = [content]
    while waiting:
        yield (value := waiting.pop())
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def nested_of(dotted: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return {"sampler.k": 1} as {"sampler": {"k": 1}}; values that are mappings are merged in."""
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, leaf = key.split(".")
        branch = nested
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise UserError(f"{key} in {source}: {section} is given as a value and as a section: keep one")
        branch[leaf] = merged(branch.get(leaf) or {}, value) if isinstance(value, dict) else value
    return nested


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with the values of `over` in it, section by section."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
