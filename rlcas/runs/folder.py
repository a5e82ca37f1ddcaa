"""The folder of a run: what lies where, and how a new one is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rlcas import settings
from rlcas.config import MethodConfig, Part, RunConfig, SynthConfig
from rlcas.errors import UserError
from rlcas.storage import remote

PATH_PREFIXES = ("npz", "folder", "csv")
FOLDER_PREFIX = "folder:"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of what a run leaves behind."""

    path: Path

    @property
    def prepared(self) -> Path:
        """Training and validation images as mapped arrays."""
        return self.path / "prepared"

    @property
    def synth(self) -> Path:
        """The synthesiser: a diffusers pipeline and its figures."""
        return self.path / "synth"

    @property
    def pool(self) -> Path:
        """Synthetic images."""
        return self.path / "pool"

    @property
    def pool_only(self) -> Path:
        """The classifier that saw synthetic images alone."""
        return self.path / "pool_only"

    @property
    def checkpoints(self) -> Path:
        """What `rlcas resume` goes on from."""
        return self.path / "checkpoints"

    @property
    def population(self) -> Path:
        """Files of a population's members, as runs begun before populations had checkpoints may still have them."""
        return self.path / "population"

    @property
    def replay(self) -> Path:
        """Settings and epochs of the run that this one replays."""
        return self.path / "replay"

    @property
    def synthesis_log(self) -> Path:
        """Losses of the synthesiser, a line each time that they were told."""
        return self.path / "synthesis_log.jsonl"

    @property
    def gallery(self) -> Path:
        """A few real and synthetic images of each class, with their sketches."""
        return self.path / "gallery.npz"

    @property
    def timings(self) -> Path:
        """Seconds of each stage."""
        return self.path / "timings.json"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def judge(self) -> Path:
        """The classifier of real images whose features the pool is judged in."""
        return self.path / "judge"

    @property
    def scores(self) -> Path:
        """The pool's figures."""
        return self.path / "scores.json"

    @property
    def image_scores(self) -> Path:
        """A line for every synthetic image: its nearest training image, the distance, whether it is a copy."""
        return self.path / "scores.csv"

    @property
    def contact_sheet(self) -> Path:
        """The synthetic images that are nearest to a training image, each beside it."""
        return self.path / "contact_sheet.png"

    @property
    def metrics(self) -> Path:
        """Final figures."""
        return self.path / "metrics.json"


def default_out(config: RunConfig) -> Path:
    """Return runs/<data>-<preset>-<seed>."""
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", data_name(config.data)).strip("-") or "data"
    return Path("runs") / f"{slug}-{config.preset}-{config.seed}"


def data_name(data: str) -> str:
    """Return what a reader calls `data`: the name, or that of the file or folder after npz:, folder: or csv:."""
    prefix, colon, path = data.partition(":")
    return Path(path).stem if colon and prefix in PATH_PREFIXES else data


def create(config: RunConfig) -> RunFolder:
    """Make the run's folder and write its resolved settings, with absolute paths.

    Where `out` is an address, the folder is a local one that stands for it (`rlcas.storage.remote`).

    Raises:
        UserError: the folder is there and not empty.
    """
    out = check_is_free(config)
    address = remote.address_of(config.out or "")
    try:
        if address is not None:
            remote.begin(address, out)
        out.mkdir(parents=True, exist_ok=True)
        settings.save(resolved(config), out)
        remote.publish(out)
    except OSError as error:
        raise UserError(
            f"out {out} cannot be made: {error.strerror}: name another folder with --out"
        ) from error
    return RunFolder(out)


def resolved(config: Part) -> Part:
    """Return the settings as the run's folder keeps them: paths absolute, the threads of an episode a number."""
    cache = config.cluster.cache and config.cluster.cache.expanduser().absolute()
    cluster = config.cluster.model_copy(update={"cache": cache})
    return config.model_copy(
        update={
            "out": out_folder(config),
            "data": absolute(config.data),
            "pool": _absolute_pool(config),
            "synth": _absolute_weights(config.synth),
            "method": _absolute_clip(config.method),
            "cluster": cluster.concrete(config.sampler.k, config.device),
        }
    )


def out_folder(config: RunConfig) -> Path:
    """Return the absolute path of the run's folder; where `out` is an address, of the one that it works in."""
    out = config.out or default_out(config)
    address = remote.address_of(out)
    return remote.working_folder(address, config.cluster.cache) if address else out.expanduser().absolute()


def local_out(out: Path) -> Path:
    """Return the absolute path of a folder that many processes write side by side.

    Raises:
        UserError: it is an address.
    """
    if (address := remote.address_of(out)) is not None:
        raise UserError(
            f"out {address} is an address, and only `rlcas run`, `rlcas train` and `rlcas synth train` work to one: "
            "name a folder, on storage that all nodes mount, and copy it when it is done"
        )
    return out.expanduser().absolute()


def check_is_free(config: RunConfig) -> Path:
    """Return the absolute path of the run's folder, which is yet to be made.

    Raises:
        UserError: it is there and not empty.
    """
    out = out_folder(config)
    if (address := remote.address_of(config.out or "")) is not None:
        remote.check_is_new(address)
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"out {out} exists and is not an empty folder: name another with --out, "
            f"or go on with it by `rlcas resume {out}`"
        )
    return out


def absolute(data: str) -> str:
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
    return str(folder.absolute()) if name and folder.is_dir() else name


def _absolute_pool(config: RunConfig) -> str | None:
    if config.pool is None or config.pool.startswith(FOLDER_PREFIX):
        return config.pool and absolute(config.pool)
    if remote.address_of(config.pool):
        return config.pool
    return str(Path(config.pool).expanduser().absolute())
