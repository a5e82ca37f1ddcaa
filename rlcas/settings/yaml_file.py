"""Settings in YAML files, read with limits on what a file may hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlcas.errors import UserError

MAX_BYTES = 1 << 16
"""Size of a settings file, which usually has a few kilobytes; PyYAML takes seconds for this many."""
MAX_DEPTH = 50
"""Levels of a settings file, which usually has three; PyYAML takes hours for `MAX_BYTES` of opening brackets."""
MAX_VALUES = 100_000
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""PyYAML raises more than its own error: for dates such as 2026-13-01, for tags such as !!int, for deep nesting."""
QUOTED_CHARACTERS = 40
MERGE_TAG = "tag:yaml.org,2002:merge"
INT_TAG = "tag:yaml.org,2002:int"


def read_yaml(path: Path, named_by: str = "") -> dict[str, Any]:
    """Return the settings of a YAML file as nested sections.

    Args:
        path: the file.
        named_by: the flag that named it, for messages; empty for a file that no flag named.

    Raises:
        UserError: the file is missing, too large, not YAML or not a mapping, or it sets a key twice.
    """
    name = _name_of(path, named_by)
    content = _content_of(_text_of(path, name), name)
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds {type(content).__name__}, not settings"
        raise UserError(f"{name} {found}: write lines like `seed: 1`")
    if not _is_small(content):
        raise UserError(f"{name} holds over {MAX_VALUES} values, by aliases of aliases: write them out")
    if text := _lone_surrogate(content):
        raise UserError(
            f"{name} is not YAML: {text} holds half a character: write the whole character, or \\U and its number"
        )
    # YAML keys may be numbers, dates or null: as text they end in the error for an unknown setting.
    return nested_of({str(key): value for key, value in content.items()}, name)


def _name_of(path: Path, named_by: str) -> str:
    """Return how messages name a file: with the flag only where a flag named it."""
    return f"{named_by} {path}" if named_by else str(path)


def _text_of(path: Path, name: str) -> str:
    try:
        # A pipe below /dev is what the shell makes of `--config <(command)`; any other may never end.
        if path.is_fifo() and Path("/dev") not in path.parents:
            raise UserError(f"{name} is a pipe, which may never end: name a YAML file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f"{name} has {size} bytes, settings {MAX_BYTES} at most: name another file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}: name an existing YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not YAML: {error}: save it as UTF-8") from None


def _content_of(text: str, name: str) -> Any:
    try:
        return _SettingsLoader(text).get_single_data()
    except _RefusedError as error:
        raise UserError(f"{name} {error}") from None
    except YAML_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} is not YAML: {reason}: correct the file") from None


class _RefusedError(yaml.YAMLError):
    """Valid YAML that would be read as something else than it seems to say."""

    def __init__(self, node: yaml.Node, text: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {text}")


class _SettingsLoader(yaml.SafeLoader):
    """Refuses deep nesting, a key that a mapping holds twice, and integers in YAML 1.1's octal notation."""

    def fetch_more_tokens(self) -> None:
        """Scan on.

        Raises:
            YAMLError: the nesting is too deep.
        """
        if self.flow_level + len(self.indents) > MAX_DEPTH:
            raise yaml.YAMLError(f"it nests deeper than {MAX_DEPTH} levels")
        super().fetch_more_tokens()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the mapping.

        Raises:
            _RefusedError: a key stands in it twice.
        """
        # Checked here, before merge keys (<<) are resolved: a key may override one that is merged in.
        mapping = super().compose_mapping_node(anchor)
        keys = [key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG]
        first: dict[str, yaml.Node] = {}
        for key in keys:
            if (before := first.setdefault(key.value, key)) is not key:
                text, line = key.value[:QUOTED_CHARACTERS], before.start_mark.line + 1
                raise _RefusedError(key, f"{text} is set twice, first in line {line}: keep one")
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return the integer.

        Raises:
            _RefusedError: it is written in octal.
        """
        # First, so that what is not an integer at all gets PyYAML's own error.
        number = super().construct_yaml_int(node)
        if re.match(r"[-+]?0[0-9_]", node.value):
            text = node.value[:QUOTED_CHARACTERS]
            raise _RefusedError(
                node, f"{text} starts with 0, which YAML reads as octal: write it without the 0, or in quotes"
            )
        return number


# PyYAML's table of constructors holds functions, which a method of the same name does not replace.
_SettingsLoader.add_constructor(INT_TAG, _SettingsLoader.construct_yaml_int)


def _is_small(content: Any) -> bool:
    """Return whether it holds at most `MAX_VALUES` values, an alias counted wherever it is used."""
    # Counted no further than the limit: aliases of aliases can stand for more values than could ever be
    # counted.
    return sum(1 for _ in itertools.islice(_values_in(content), MAX_VALUES + 1)) <= MAX_VALUES


def _lone_surrogate(content: Any) -> str | None:
    """Return, in short, a text with half a UTF-16 pair, which YAML's escapes can write; None if there is none."""
    texts = (value for value in _values_in(content) if isinstance(value, str))
    broken = (text for text in texts if any("\ud800" <= c <= "\udfff" for c in text))
    return next((ascii(text[:QUOTED_CHARACTERS]) for text in broken), None)


def _values_in(content: Any) -> Iterator[Any]:
    """Yield every value of a settings file, keys included."""
    # No recursion, as the depth is the file's.
    waiting = [content]
    while waiting:
        yield (value := waiting.pop())
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def nested_of(dotted: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return {"sampler.k": 1} as {"sampler": {"k": 1}}; values that are mappings are merged in.

    Raises:
        UserError: a section is a value too, or a setting stands there twice, by its dotted key and in its section;
            `source` is where the message says that it is.
    """
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, leaf = key.split(".")
        branch = nested
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise _both(key, section, source)
        _add(branch, leaf, value, key, source)
    return nested


def _add(branch: dict[str, Any], leaf: str, value: Any, key: str, source: str) -> None:
    """Set `leaf` of a branch, of which `key` is the whole name, to a value that was not there before.

    Raises:
        UserError: it was, or a part of it.
    """
    if leaf not in branch:
        # A copy of a mapping: what else is in the section is added to it, and must not be to the caller's.
        branch[leaf] = merged({}, value) if isinstance(value, dict) else value
    elif isinstance(value, dict) and isinstance(branch[leaf], dict):
        for name, part in value.items():
            _add(branch[leaf], name, part, f"{key}.{name}", source)
    elif isinstance(value, dict) or isinstance(branch[leaf], dict):
        raise _both(key, leaf, source)
    else:
        raise UserError(f"{key} in {source} is set twice, by its dotted key and in its section: keep one")


def _both(key: str, section: str, source: str) -> UserError:
    return UserError(f"{key} in {source}: {section} is given as a value and as a section: keep one")


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with the values of `over` in it, section by section."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
