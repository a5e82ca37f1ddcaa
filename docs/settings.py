"""Write the settings reference, `docs/settings.md`, from `rlcas/config/`, the presets and the registries.

`python docs/settings.py` writes it anew; `tests/test_docs.py` holds the file to what this makes.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcas.config import FileConfig
from rlcas.settings.presets import PRESETS
from rlcas.storage.atomic import write_text

Schema = dict[str, Any]

PAGE = Path(__file__).with_suffix(".md")
REGISTRY = re.compile(r"\b((?:rlcas|synth|envs|cluster)(?:\.\w+)*)\.([A-Z_]{2,})\b")
"""A plain dict of names, as the text under a field tells of it: rlcas.losses.LOSSES."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
HEAD = "| setting | default | takes | meaning |\n|---|---|---|---|"
INTRO = """# Settings

Every setting, its default, what the presets make of it, and what it takes. This page is written by
`python docs/settings.py` from `rlcas/config/`, where each is declared once; change it there.

A setting has one dotted name everywhere: as a flag (`--sampler.k 5`), in a YAML file (`--config FILE`), in Python
(`rlcas.settings_of({"sampler": {"k": 5}})`) and in Ray Tune. Later sources win: default, preset, file, flag. Lists are
typed with commas (`--dataset.split 0.6,0.2,0.2`), and `null`, which the texts call None, as `none`. `--dry-run` prints
what a run would have.

`--preset best`, the default, is the column "default" as it is; `quick` and `paper` stand there where they differ.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A group of settings."""

    key: str
    """Dotted; empty for the settings that are in no group."""
    text: str
    settings: Mapping[str, Schema]

    @property
    def title(self) -> str:
        """Return the heading, a level deeper for a group within a group."""
        return f"{'#' * (2 + self.key.count('.'))} {self.key or 'The run'}"


def sections(schema: Schema, group: Schema, key: str = "") -> Iterator[Section]:
    """Yield a group of settings and then those within it, in the order of declaration."""
    properties = group["properties"].items()
    own = {_join(key, name): part for name, part in properties if "$ref" not in part}
    yield Section(key, group["description"] if key else "", own)
    for name, part in properties:
        if "$ref" in part:
            yield from sections(schema, schema["$defs"][part["$ref"].rpartition("/")[2]], _join(key, name))


def row(key: str, setting: Schema) -> str:
    """Return a setting's line of the table."""
    cells = [f"`{key}`", default(key, setting["default"]), takes(setting), meaning(setting["description"])]
    return " | ".join(["", *(cell.replace("|", r"\|") for cell in cells), ""]).strip()


def default(key: str, value: Any) -> str:
    """Return the default, and the values of presets that differ from it."""
    of_presets = {name: _stated(preset, key, value) for name, preset in PRESETS.items()}
    others = [f"{name} {_code(other)}" for name, other in of_presets.items() if _code(other) != _code(value)]
    return "; ".join([_code(value), *others])


def takes(schema: Schema) -> str:
    """Return in words what a JSON schema admits."""
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(takes, variants))
    if choices := schema.get("enum"):
        return ", ".join(map(_code, choices))
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"{len(schema['prefixItems'])} × {takes(schema['prefixItems'][0])}"
        case "array":
            return f"list of {takes(schema['items'])}"
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return schema.get("format", "text")
        case "object":
            return "mapping"
        case kind:
            bounds = [f"{sign} {schema[name]:g}" for name, sign in BOUNDS.items() if name in schema]
            multiple = [f"a multiple of {schema['multipleOf']}"] if "multipleOf" in schema else []
            return " ".join([str(kind), " and ".join(bounds + multiple)]).strip()


def meaning(text: str) -> str:
    """Return the text under a field on one line, with the names that a registry holds."""
    line = " ".join(text.split()).replace("<", r"\<")
    return REGISTRY.sub(lambda found: f"`{found[0]}` ({', '.join(map(_code, names(*found.groups())))})", line)


def names(module: str, registry: str) -> list[str]:
    """Return what a registry holds."""
    return list(getattr(importlib.import_module(module), registry))


def reference() -> str:
    """Return the whole page."""
    schema = FileConfig.model_json_schema()
    parts = [INTRO]
    for section in sections(schema, schema):
        table = [HEAD, *(row(key, setting) for key, setting in section.settings.items())]
        parts += [section.title, section.text, "\n".join(table) if section.settings else ""]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _stated(preset: Any, key: str, default: Any) -> Any:
    """Return what a preset states of a setting, else its default."""
    for name in key.split("."):
        if not isinstance(preset, Mapping) or name not in preset:
            return default
        preset = preset[name]
    return preset


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    write_text(PAGE, reference())
