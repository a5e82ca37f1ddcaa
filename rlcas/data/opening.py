"""Opening of a data set by its name or path: labels and names are read, images not yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlcas.config import RunConfig
from rlcas.data.checks import check_class_names
from rlcas.data.classes import with_classes
from rlcas.data.folder import open_folder
from rlcas.data.medmnist import medmnist_names, open_medmnist
from rlcas.data.npz import open_npz
from rlcas.data.phantom import open_phantoms
from rlcas.data.source import Source
from rlcas.data.table import open_csv
from rlcas.data.unused import with_unused
from rlcas.errors import UserError
from rlcas.registry import lookup
from rlcas.storage import remote

Reader = Callable[[RunConfig, bool], Source]
"""(settings, whether to show progress) -> the data set."""


# A function, because a lambda in the comprehension below would see the last flag and size only.
def _medmnist_reader(flag: str, size_px: int) -> Reader:
    return lambda config, progress: open_medmnist(flag, size_px, progress=progress)


DATASETS: dict[str, Reader] = {
    "phantom": lambda config, progress: open_phantoms(
        config.dataset.phantom, config.dataset.split, seed_of(config)
    ),
    **{name: _medmnist_reader(flag, size_px) for name, (flag, size_px) in medmnist_names().items()},
}
"""Data sets by name; code from outside is named package.module:object."""

PREFIXES: dict[str, Callable[[Path, RunConfig], Source]] = {
    "npz": lambda path, config: open_npz(path),
    "folder": lambda path, config: open_folder(path, config.dataset),
    "csv": lambda path, config: open_csv(path, config.dataset),
}
"""Readers by prefix: `npz:PATH` and so on."""


def open_source(config: RunConfig, *, progress: bool = False) -> Source:
    """Return the data set that `config.data` names; no image is decoded.

    Raises:
        UserError: it is unknown, or not in the form that its prefix says.
    """
    source = _read(config, progress)
    check_class_names(source.where, source.class_names or ())
    prefix = config.data.partition(":")[0]
    return with_unused(with_classes(source, config.dataset), prefix, config.dataset)


def _read(config: RunConfig, progress: bool) -> Source:
    prefix, _, path = config.data.partition(":")
    # `package.module:object` has a colon too, hence only known prefixes are split off.
    if prefix in PREFIXES:
        return PREFIXES[prefix](_local(prefix, path, config), config)
    check_name(config.data)
    return lookup(config.data, DATASETS, "data")(config, progress)


def check_name(name: str) -> None:
    """Check that `name` is a known data set or has a prefix; no file is read, and package.module:object not imported.

    Raises:
        UserError: it is unknown.
    """
    if name not in DATASETS and ":" not in name:
        raise UserError(
            f"data {name!r} is unknown: use {', '.join(f'{prefix}:PATH' for prefix in PREFIXES)}, "
            f"or one of {', '.join(sorted(DATASETS))}"
        )


def seed_of(config: RunConfig) -> int:
    """Return the seed of all random draws in the data."""
    return config.seed if config.dataset.seed is None else config.dataset.seed


def _local(prefix: str, path: str, config: RunConfig) -> Path:
    """Return the local path of `path`; for the address of a table, its whole folder with the images is fetched."""
    if prefix == "csv" and remote.address_of(path):
        parent, _, name = path.rpartition("/")
        return remote.fetched(parent, config.cluster.cache) / name
    return remote.fetched(path, config.cluster.cache)
