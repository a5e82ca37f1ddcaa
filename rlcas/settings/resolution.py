"""Settings from presets, YAML files and dotted flags to one `RunConfig`, and back to YAML.

Later sources win: defaults, preset, `--config FILE`, flags.
"""

from __future__ import annotations

import difflib
import itertools
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rlcas.config import ComparedConfig, RunConfig, StatedConfig, SweptConfig, only
from rlcas.config.values import CREDENTIALS
from rlcas.errors import UserError
from rlcas.settings.presets import PRESETS
from rlcas.storage.atomic import write_text

CONFIG_FILE = "config.yaml"
SWEEP_CONFIG_FILE = "sweep.yaml"
COMPARE_CONFIG_FILE = "compare.yaml"
MOST_BYTES = 1 << 16
"""Of a file of settings, which has some kilobytes; PyYAML takes seconds for this many."""
DEEPEST = 50
"""Levels of a file of settings, which has some three; PyYAML takes hours for as many brackets as `MOST_BYTES`."""
MOST_VALUES = 100_000
SHOWN_CHARACTERS = 120
ODD_VALUES = (ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises beside its own error: of dates such as 2026-13-01, of tags such as !!int, of deep nests."""

Checked = TypeVar("Checked", bound=BaseModel)
Given = TypeVar("Given", bound=RunConfig)


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting as a command-line flag."""

    key: str
    """Dotted, without dashes: sampler.k"""
    help: str
    annotation: Any
    default: Any


def flags(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Flag]:
    """Yield every leaf setting of `model`, in the order of declaration."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from flags(field.annotation, f"{key}.")
        else:
            yield Flag(key, field.description or "", field.annotation, field.default)


def resolve(
    *, given: Mapping[str, str], file: Path | None = None, base: Mapping[str, Any] | None = None
) -> RunConfig:
    """Return the validated settings of a run.

    Args:
        given: dotted key -> text, as typed on the command line.
        file: a YAML file with the same keys, nested or dotted.
        base: nested settings under the file, such as those of `rlcas demo`.

    Raises:
        UserError: an unknown setting, a value that does not fit, or an unreadable file.
    """
    return of(stated(given=given, file=file, base=base))


def stated(
    *, given: Mapping[str, Any], file: Path | None = None, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return, nested, what flags, a file and `base` state, without defaults and preset; arguments as of `resolve`."""
    typed = _nested({key: _parse(key, value) for key, value in given.items()}, "flag")
    return _merged(base or {}, _merged(read_yaml(file, "--config ") if file else {}, typed))


def of(stated: Mapping[str, Any]) -> RunConfig:
    """Return the settings of a run from what is stated of them, nested or dotted, over the preset named there.

    Sections `sweep` and `compare` are checked and left out, so that one file serves all commands.

    Raises:
        UserError: a setting is unknown or its value does not fit.
    """
    return only(RunConfig, _resolved(stated))


def of_sweep(stated: Mapping[str, Any], point: Mapping[str, Any] | None = None) -> SweptConfig:
    """Return what is stated as the settings of a sweep; `point` states some anew, by dotted keys.

    Raises:
        UserError: a setting is unknown or its value does not fit.
    """
    return only(SweptConfig, _resolved(stated, point))


def of_comparison(stated: Mapping[str, Any]) -> ComparedConfig:
    """Return what is stated as the settings of a comparison.

    Raises:
        UserError: a setting is unknown or its value does not fit.
    """
    return only(ComparedConfig, _resolved(stated))


def _resolved(stated: Mapping[str, Any], point: Mapping[str, Any] | None = None) -> StatedConfig:
    anew = {key: _parse(key, value) for key, value in (point or {}).items()}
    nested = _merged(_nested(stated, "settings"), _nested(anew, "sweep.over"))
    preset = nested.get("preset", RunConfig.model_fields["preset"].default)
    return _checked(StatedConfig, _merged(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, nested))


def override(config: Given, given: Mapping[str, Any]) -> Given:
    """Return settings with some of them given anew, as typed on the command line or as values.

    New agents have their own settings in place of those that the old ones brought.
    """
    typed = _nested({key: _parse(key, value) for key, value in given.items()}, "flag")
    known = config.model_dump()
    if "agents" in typed.get("sampler", {}):
        known["sampler"] = config.sampler.stated()
    return _checked(type(config), _merged(known, typed))


def validated(nested: Mapping[str, Any]) -> RunConfig:
    """Return `nested` as a RunConfig; the first fault becomes one line.

    Raises:
        UserError: a setting is unknown or its value does not fit.
    """
    return _checked(RunConfig, nested)


def kinds_of(key: str) -> set[Any]:
    """Return the plain types that a run's setting takes, and its choices; nothing where there is no such setting."""
    return _kinds_in(RunConfig, key)


def _kinds_in(model: type[BaseModel], key: str) -> set[Any]:
    return next((_kinds(flag.annotation) for flag in flags(model) if flag.key == key), set())


def _checked(model: type[Checked], nested: Mapping[str, Any]) -> Checked:
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        raise UserError(_one_line(error)) from None


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
    return _nested({str(key): value for key, value in content.items()}, str(path))


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


def load(folder: Path) -> RunConfig:
    """Return the resolved settings of a run's folder.

    Raises:
        UserError: the folder is not a run's.
    """
    path = folder / CONFIG_FILE
    if (folder / SWEEP_CONFIG_FILE).is_file():
        raise UserError(
            f"{folder} is a sweep's folder: `rlcas sweep --resume` goes on with it; name one of its trials"
        )
    if (folder / COMPARE_CONFIG_FILE).is_file():
        raise UserError(
            f"{folder} is a comparison's folder: `rlcas resume` goes on with it; name one of its cells"
        )
    if not path.is_file():
        raise UserError(f"{folder} is not a run's folder: it has no {CONFIG_FILE}; name the --out of a run")
    return validated(read_yaml(path))


def save(config: RunConfig, folder: Path) -> None:
    """Write the resolved settings to the run's folder."""
    write_text(folder / CONFIG_FILE, as_yaml(config))


def as_yaml(config: RunConfig) -> str:
    """Return the settings as YAML, in the order of their declaration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def unknown_setting(key: str) -> str:
    """Return the line that answers an unknown setting with the nearest known one."""
    known = [flag.key for flag in flags(StatedConfig)]
    leaf = key.rpartition(".")[2]
    same_leaf = [flag for flag in known if flag.rpartition(".")[2] == leaf]
    close = same_leaf or difflib.get_close_matches(key, known, n=1) or [flag for flag in known if leaf in flag]
    mend = f"did you mean {close[0]}?" if close else "`rlcas run --help` lists the settings"
    return f"unknown setting {key[:SHOWN_CHARACTERS]}: {mend}"


def _nested(dotted: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return {"sampler.k": 1} as {"sampler": {"k": 1}}; values that are mappings are merged in."""
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, leaf = key.split(".")
        branch = nested
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise UserError(f"{key} in {source}: {section} is given as a value and as a section: keep one")
        branch[leaf] = _merged(branch.get(leaf) or {}, value) if isinstance(value, dict) else value
    return nested


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _parse(key: str, text: Any) -> Any:
    """Return a flag's text as the value that pydantic shall check: lists take commas, one of a few numbers is it."""
    if not isinstance(text, str):
        return text
    kinds = _kinds_in(StatedConfig, key)
    if type(None) in kinds and text.lower() in ("none", "null"):
        return None
    if tuple in kinds and (int not in kinds or "," in text):
        return [item.strip() for item in text.strip("[]() ").split(",") if item.strip()]
    return next((kind.value for kind in kinds if isinstance(kind, _Choice) and str(kind.value) == text), text)


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of the values of a Literal."""

    value: Any


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types in an annotation and the choices: Literal[1, 3] | None -> {1, 3, NoneType}."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return set().union(*(_kinds(part) for part in parts))
    if origin is typing.Annotated:
        return _kinds(parts[0])
    if origin is typing.Literal:
        return {_Choice(value) for value in parts}
    return {origin or annotation}


def _setting_at(parts: list[str]) -> str:
    """Return the setting at a place of pydantic's, which goes deeper where a setting takes several types."""
    known = {flag.key for flag in flags(StatedConfig)}
    starts = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((start for start in starts if start in known), ".".join(parts))


def _one_line(error: ValidationError) -> str:
    first, *rest = error.errors()
    key = _setting_at([part for part in first["loc"] if isinstance(part, str)])
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        return f"{unknown_setting(key)}{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":  # of a tuple: every setting has a default
        return f"{key} is {_shown(first['input'])}: it takes more values; see --help for --{key}{more}"
    if first["type"] == "value_error":
        return f"{message}{more}"
    if first["type"] == CREDENTIALS:
        return f"{key}{'.' * bool(key)}{message}{more}"
    return f"{key} is {_shown(first['input'])}: {message[0].lower()}{message[1:]}; see --help for --{key}{more}"


def _shown(value: Any) -> str:
    """Return a value in short: a YAML file of a few lines can hold one of gigabytes."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = SHOWN_CHARACTERS
    shortened.maxlevel, shortened.maxlist, shortened.maxtuple = 2, 4, 4
    return shortened.repr(value)
