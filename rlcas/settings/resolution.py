"""From presets, YAML files and dotted flags to one `RunConfig`, and back to YAML.

Each source overrides those before it: defaults, preset, `--config FILE`, flags.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rlcas.config import IMAGE_START_DEFAULTS, CompareRunConfig, FileConfig, RunConfig, SweepRunConfig, only
from rlcas.config.values import CREDENTIALS
from rlcas.errors import UserError
from rlcas.settings.cli_flags import SHOWN_CHARACTERS, flags, parse, switch_words, unknown_setting
from rlcas.settings.presets import PRESETS
from rlcas.settings.yaml_file import merged, nested_of, read_yaml
from rlcas.storage.atomic import write_text

CONFIG_FILE = "config.yaml"
SWEEP_CONFIG_FILE = "sweep.yaml"
COMPARE_CONFIG_FILE = "compare.yaml"

Checked = TypeVar("Checked", bound=BaseModel)
Given = TypeVar("Given", bound=RunConfig)


def resolve(
    *, given: Mapping[str, str], file: Path | None = None, base: Mapping[str, Any] | None = None
) -> RunConfig:
    """Return the validated settings of a run.

    Args:
        given: the flags on the command line: dotted key -> text.
        file: a YAML file with the same keys, nested or dotted.
        base: nested settings that the file overrides, such as those of `rlcas demo`.

    Raises:
        UserError: an unknown setting, an invalid value, or a file that cannot be read.
    """
    return of(stated(given=given, file=file, base=base))


def stated(
    *, given: Mapping[str, Any], file: Path | None = None, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings in flags, file and `base` as nested sections, without the defaults and the preset's.

    The arguments are those of `resolve`.

    Raises:
        UserError: the file cannot be read, or a section is set as a value.
    """
    typed = nested_of({key: parse(key, value) for key, value in given.items()}, "flag")
    return merged(base or {}, merged(read_yaml(file, "--config") if file else {}, typed))


def of(stated: Mapping[str, Any]) -> RunConfig:
    """Return the validated settings of a run: `stated` ones, nested or dotted, over those of the preset it names.

    The sections `sweep` and `compare` are validated too, but left out, so that one file serves all commands.

    Raises:
        UserError: a setting is unknown or its value is invalid.
    """
    return only(RunConfig, _resolved(stated))


def of_sweep(stated: Mapping[str, Any], point: Mapping[str, Any] | None = None) -> SweepRunConfig:
    """Return the validated settings of a sweep: `stated` ones, some of which a `point` overrides by dotted keys.

    Raises:
        UserError: a setting is unknown or its value is invalid.
    """
    return only(SweepRunConfig, _resolved(stated, point))


def of_comparison(stated: Mapping[str, Any]) -> CompareRunConfig:
    """Return the validated settings of a comparison.

    Raises:
        UserError: a setting is unknown or its value is invalid.
    """
    return only(CompareRunConfig, _resolved(stated))


def _resolved(stated: Mapping[str, Any], point: Mapping[str, Any] | None = None) -> FileConfig:
    overrides = {key: parse(key, value) for key, value in (point or {}).items()}
    nested = merged(nested_of(stated, "settings"), nested_of(overrides, "sweep.over"))
    # Looked up before validation, as what it names is under the stated settings; a wrong name is pydantic's to
    # refuse.
    preset = nested.get("preset", RunConfig.model_fields["preset"].default)
    return _checked(FileConfig, merged(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, nested))


def override(config: Given, given: Mapping[str, Any]) -> Given:
    """Return `config` with some settings changed, which are `given` as texts or values by dotted keys.

    If the agents change, the defaults of the old agents are replaced by those of the new ones. If images start from
    noise, what belongs to a start from images is dropped.

    Raises:
        UserError: a setting is unknown or its value is invalid.
    """
    typed = nested_of({key: parse(key, value) for key, value in given.items()}, "flag")
    known = config.model_dump()
    if "agents" in typed.get("sampler", {}):
        # As if only these had been stated: the validator fills in the defaults of the new agents.
        known["sampler"] = config.sampler.stated()
    if typed.get("synth", {}).get("generation", {}).get("start") == "noise":
        # Those of a start from images went with it.
        known["synth"]["generation"].update(dict.fromkeys(IMAGE_START_DEFAULTS))
    return _checked(type(config), merged(known, typed))


def validated(nested: Mapping[str, Any]) -> RunConfig:
    """Return `nested` as a RunConfig; the error message is one line about the first fault.

    Raises:
        UserError: a setting is unknown or its value is invalid.
    """
    return _checked(RunConfig, nested)


def _checked(model: type[Checked], nested: Mapping[str, Any]) -> Checked:
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        raise UserError(_one_line(error)) from None


def load(folder: str | Path) -> RunConfig:
    """Return the resolved settings in a run's folder.

    Raises:
        UserError: the folder is not a run's, or its settings file is damaged.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    if (folder / SWEEP_CONFIG_FILE).is_file():
        raise UserError(
            f"{folder} is a sweep's folder: continue it with `rlcas sweep --resume`, or name one of its trials"
        )
    if (folder / COMPARE_CONFIG_FILE).is_file():
        raise UserError(
            f"{folder} is a comparison's folder: continue it with `rlcas resume`, or name one of its cells"
        )
    if not path.is_file():
        raise UserError(f"{folder} is not a run's folder: it has no {CONFIG_FILE}; name the --out of a run")
    nested = read_yaml(path)
    try:
        return validated(nested)
    except UserError as error:
        # Its line names the setting alone, as of a flag: here the file is at fault.
        raise UserError(f"{path}: {error}") from None


def save(config: RunConfig, folder: Path) -> None:
    """Write the resolved settings to the run's folder."""
    write_text(folder / CONFIG_FILE, as_yaml(config))


def as_yaml(config: RunConfig) -> str:
    """Return the settings as YAML, in the order of their declaration."""
    # mode="json": paths and tuples become texts and lists, which safe YAML can hold.
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _setting_at(parts: list[str]) -> str:
    """Return the setting at a place in pydantic's error; the place is longer if the setting has several types."""
    known = {flag.key for flag in flags(FileConfig)}
    starts = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((start for start in starts if start in known), ".".join(parts))


def _setting_of(error: Mapping[str, Any]) -> str:
    # Numbers in the place are those of a tuple's members.
    return _setting_at([part for part in error["loc"] if isinstance(part, str)])


def _one_line(error: ValidationError) -> str:
    first, *rest = error.errors()
    key = _setting_of(first)
    words = switch_words(key)
    if words:
        # pydantic reports each type of a setting that has several.
        rest = [other for other in rest if _setting_of(other) != key]
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        return f"{unknown_setting(key)}{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":  # a member of a tuple, because every setting has a default
        return f"{key} is {_shown(first['input'])}: it takes more values; see --help for --{key}{more}"
    # Our own validators name the setting themselves.
    if first["type"] == "value_error":
        return f"{message}{more}"
    if first["type"] == CREDENTIALS:
        return f"{key}{'.' * bool(key)}{message}{more}"
    message = f"it takes {words}" if words else f"{message[0].lower()}{message[1:]}"
    return f"{key} is {_shown(first['input'])}: {message}; see --help for --{key}{more}"


def _shown(value: Any) -> str:
    """Return a value in short: with aliases, a YAML file of a few lines can hold a value of gigabytes."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = SHOWN_CHARACTERS
    shortened.maxlevel, shortened.maxlist, shortened.maxtuple = 2, 4, 4
    return shortened.repr(value)
