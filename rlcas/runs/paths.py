"""Paths in the settings: where a command writes, and how a run's folder keeps the paths, all absolute."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rlcas.config import MethodConfig, Part, RunConfig, SynthConfig
from rlcas.errors import UserError
from rlcas.storage import remote

PATH_PREFIXES = ("npz", "folder", "csv")
FOLDER_PREFIX = "folder:"
OUT_NAMES = {
    "run": "{data}-{preset}-{seed}",
    "compare": "{data}-compare-{preset}-{seed}",
    "sweep": "{data}-{preset}-{seed}-sweep",
}
"""Command -> name of its folder below `runs`, where --out names none."""


def default_out(config: RunConfig, command: Literal["run", "compare", "sweep"] = "run") -> Path:
    """Return the folder of a command without --out, such as runs/<data>-<preset>-<seed>."""
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", data_name(config.data)).strip("-") or "data"
    return Path("runs") / OUT_NAMES[command].format(data=slug, preset=config.preset, seed=config.seed)


def data_name(data: str) -> str:
    """Return what a reader calls `data`: its name, or that of the file or folder after npz:, folder: or csv:."""
    prefix, colon, path = data.partition(":")
    return Path(path).stem if colon and prefix in PATH_PREFIXES else data


def check_is_new(out: Path, resume_command: str) -> Path:
    """Return `out`, the absolute path of a folder that is yet to be made.

    Args:
        out: the folder.
        resume_command: what continues in such a folder, as in "rlcas resume".

    Raises:
        UserError: it exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"out {out} exists and is not an empty folder: name another with --out, or resume it by "
            f"`{resume_command} {shlex.quote(str(out))}`"
        )
    return out


def check_run_is_new(config: RunConfig) -> Path:
    """Return the absolute path of the run's folder, which is yet to be made.

    Raises:
        UserError: it exists and is not empty.
    """
    out = out_folder(config)
    if (address := remote.address_of(config.out or "")) is not None:
        remote.check_address_is_new(address)
        return out
    return check_is_new(out, "rlcas resume")


def require_pool(config: RunConfig) -> None:
    """Check that a pool is named, without which phase two cannot run alone.

    Raises:
        UserError: none is.
    """
    if config.pool is None:
        raise UserError("pool is not set: name one with --pool DIR or --pool folder:PATH, or use `rlcas run`")


@contextlib.contextmanager
def naming_out(out: Path) -> Iterator[None]:
    """Turn an OSError inside into one line that names `out`.

    Raises:
        UserError: `out` cannot be made.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"out {out} cannot be made: {error.strerror}: name another folder with --out"
        ) from error


def resolved(config: Part) -> Part:
    """Return the settings as the run's folder keeps them: paths absolute, the threads of an episode a number."""
    cache = config.cluster.cache and config.cluster.cache.expanduser().absolute()
    cluster = config.cluster.model_copy(update={"cache": cache})
    return config.model_copy(
        update={
            "out": out_folder(config),
            "data": absolute_data(config.data),
            "pool": _absolute_pool(config),
            "synth": _absolute_weights(config.synth),
            "method": _absolute_clip(config.method),
            "cluster": cluster.concrete(config.sampler.num_workers, config.device),
        }
    )


def out_folder(config: RunConfig) -> Path:
    """Return the absolute path of the run's folder; where `out` is an address, that of the local folder for it."""
    out = config.out or default_out(config)
    address = remote.address_of(out)
    return remote.working_folder(address, config.cluster.cache) if address else out.expanduser().absolute()


def local_out(out: Path) -> Path:
    """Return the absolute path of a folder that many processes write to.

    Raises:
        UserError: it is an address.
    """
    if (address := remote.address_of(out)) is not None:
        raise UserError(
            f"out {address} is an address, and only `rlcas run`, `rlcas train` and `rlcas synth train` write to one: "
            "name a folder, on storage that all nodes mount, and copy it when it is done"
        )
    return out.expanduser().absolute()


def absolute_data(data: str) -> str:
    """Return `data` with the path after npz:, folder: or csv: made absolute; names and addresses stay as they are."""
    prefix, colon, path = data.partition(":")
    if not colon or prefix not in PATH_PREFIXES or remote.address_of(path):
        return data
    return f"{prefix}:{Path(path).expanduser().absolute()}"


def _absolute_weights(synth: SynthConfig) -> SynthConfig:
    """Return the settings with the paths of pretrained models made absolute; hub names stay as they are."""
    groups = {
        name: group.model_copy(update={"pretrained": _absolute_model(group.pretrained)})
        for name, group in (("autoencoder", synth.autoencoder), ("skin_sdm", synth.skin_sdm))
    }
    return synth.model_copy(update=groups)


def _absolute_clip(method: MethodConfig) -> MethodConfig:
    lift = method.lift.model_copy(update={"pretrained": _absolute_model(method.lift.pretrained)})
    return method.model_copy(update={"lift": lift})


def _absolute_model(name: str | None) -> str | None:
    folder = Path(name or "").expanduser()
    # A hub name such as owner/model looks like a relative path; only what is a folder is one.
    return str(folder.absolute()) if name and folder.is_dir() else name


def _absolute_pool(config: RunConfig) -> str | None:
    if config.pool is None or config.pool.startswith(FOLDER_PREFIX):
        return config.pool and absolute_data(config.pool)
    if remote.address_of(config.pool):
        return config.pool
    return str(Path(config.pool).expanduser().absolute())
