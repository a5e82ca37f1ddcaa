"""Settings that a source does not read, for a note: a foreign set may be of another form than the run's own."""

from __future__ import annotations

from dataclasses import replace

from rlcas.config import DatasetConfig
from rlcas.data.source import Source

READERS = {
    "columns": ("csv",),
    "images": ("csv",),
    "join": ("csv",),
    "unlabelled": ("csv",),
    "levels": ("folder",),
    "patient_pattern": ("folder", "csv"),
}
"""Setting of `dataset` -> prefixes of the sources that read it."""


def with_unused(source: Source, prefix: str, dataset: DatasetConfig) -> Source:
    """Return the source with a note on the settings that are stated, but not read for data of this prefix."""
    stated = [name for name in READERS if getattr(dataset, name) != DatasetConfig.model_fields[name].default]
    notes = [
        f"dataset.{name} is not used: it is for {' and '.join(f'{reader}:' for reader in READERS[name])} data"
        for name in stated
        if prefix not in READERS[name]
    ]
    return replace(source, notes=(*source.notes, *notes))
