"""Settings from presets, YAML files and dotted flags, resolved to one validated `RunConfig`."""

from rlcas.settings.cli_flags import Flag, flags, kinds_of, unknown_setting
from rlcas.settings.resolution import (
    COMPARE_CONFIG_FILE,
    CONFIG_FILE,
    SWEEP_CONFIG_FILE,
    as_yaml,
    load,
    of,
    of_comparison,
    of_sweep,
    override,
    resolve,
    save,
    stated,
    validated,
)
from rlcas.settings.yaml_file import read_yaml

__all__ = [
    "COMPARE_CONFIG_FILE",
    "CONFIG_FILE",
    "SWEEP_CONFIG_FILE",
    "Flag",
    "as_yaml",
    "flags",
    "kinds_of",
    "load",
    "of",
    "of_comparison",
    "of_sweep",
    "override",
    "read_yaml",
    "resolve",
    "save",
    "stated",
    "unknown_setting",
    "validated",
]
