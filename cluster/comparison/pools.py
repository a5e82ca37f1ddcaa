"""The pools of a comparison: each made and scored once, and shared by all rows and seeds."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path

from cluster.comparison.plan import POOLS
from cluster.pools.scores import score_pool
from cluster.pools.stored import open_pool, run_pool
from cluster.runs.run import make_pool
from rlcas import settings
from rlcas.config import IMAGE_START_DEFAULTS, RunConfig, SynthConfig
from rlcas.console import say
from rlcas.data import open_prepared
from rlcas.devices import choose_device
from rlcas.errors import first_line
from rlcas.runs.context import RunContext
from rlcas.runs.folder import ERROR_FILE, POOLS_FOLDER, RunFolder
from rlcas.runs.images import link_once, share_images
from rlcas.storage.atomic import read_facts, replacing_folder, write_json, write_text
from synth.layout import CHECKPOINTS_FOLDER, FIGURES_FILE, IGNORE_UNFINISHED, LDM_FOLDER, PIPELINE_FOLDER


def make_pools(comparison: Path, names: Iterable[str]) -> dict[str, str]:
    """Make and score the pools that have no scores yet; return, by name, why pools failed."""
    failed: dict[str, str] = {}
    for name in names:
        folder = RunFolder(comparison / POOLS_FOLDER / name)
        # The scores come after everything that the rows need of a pool.
        if folder.scores.exists():
            continue
        say(f"pool {name}:")
        try:
            _share(comparison, folder)
            make_pool(folder.path)
            _score(folder)
        # A pool that fails takes only its own rows with it.
        except Exception as error:
            write_text(folder.path / ERROR_FILE, traceback.format_exc())
            failed[name] = f"pool {name}: {first_line(error)}"
            say(f"pool {name} failed, its traceback: {folder.path / ERROR_FILE}: {first_line(error)}")
    return failed


def parts_taken_over(name: str, earlier: Collection[str]) -> set[str]:
    """Return the parts of a pool's training that it takes over from pools made before it."""
    parts = {"autoencoder"} if {"sketch", "image", "class"} & set(earlier) else set()
    alike = {"mgdm": "class", "image": "sketch"}.get(name)
    return parts | ({"denoiser"} if alike in earlier else set())


def _share(comparison: Path, folder: RunFolder) -> None:
    """Link the images and the judge into a pool's folder, and take over what other pools have trained alike."""
    shared = RunFolder(comparison)
    # A folder before the link to it: mkdir does not make what a dangling link points to. One judge for all
    # pools, so that their distances are in the same features.
    shared.judge.mkdir(exist_ok=True)
    share_images(shared, folder)
    link_once(shared.judge, folder.judge)
    # Nor do the classifiers of repeated real images depend on the pool.
    shared.taught_by_repeats.mkdir(parents=True, exist_ok=True)
    folder.taught_by_repeats.parent.mkdir(exist_ok=True)
    link_once(shared.taught_by_repeats, folder.taught_by_repeats)
    # A given pool is only read: nothing is trained for it.
    if settings.load(folder.path).pool is not None:
        return
    for name in POOLS:  # in the order in which they were made, as one may have taken over from another
        other = RunFolder(comparison / POOLS_FOLDER / name)
        if other != folder and (other.synth / PIPELINE_FOLDER).exists():
            # Loaded anew, because taking over from the pool before may have changed the settings.
            _take_over(other, folder, settings.load(folder.path))


def _take_over(other: RunFolder, folder: RunFolder, config: RunConfig) -> None:
    """Take over another pool's whole diffusion model if it would be the same, else its autoencoder if that would."""
    theirs, ours = settings.load(other.path).synth, config.synth
    if ours.generator not in ("ldm", "mgdm") or ours.autoencoder != theirs.autoencoder:
        return
    pipeline, ldm = other.synth / PIPELINE_FOLDER, folder.synth / CHECKPOINTS_FOLDER / LDM_FOLDER
    if theirs.generator == "ldm" and _are_trained_alike(ours, theirs):
        # MGDM disturbs the images of a plain diffusion model: the trained one is the same where all else is equal.
        whole = ldm if ours.generator == "mgdm" else folder.synth
        # Neither over a finished generator nor over a diffusion model that was taken over before.
        if not (folder.synth / FIGURES_FILE).exists() and not (whole / FIGURES_FILE).exists():
            if whole == folder.synth:
                # Nothing is left to train: without its time the pool would count as made elsewhere.
                write_json(folder.timings, read_facts(folder.timings) | {"synthesiser": 0.0})
            with replacing_folder(whole) as temporary:
                shutil.copytree(other.synth, temporary, ignore=IGNORE_UNFINISHED, dirs_exist_ok=True)
    elif ours.autoencoder.pretrained is None:
        # As a pretrained one it is used unchanged; the latents, and so the images, are those of training it
        # again.
        autoencoder = ours.autoencoder.model_copy(update={"pretrained": str(pipeline / "vae")})
        synth = ours.model_copy(update={"autoencoder": autoencoder})
        settings.save(config.model_copy(update={"synth": synth}), folder.path)


def _are_trained_alike(ours: SynthConfig, theirs: SynthConfig) -> bool:
    """Return whether settings differ at most in the generator, and in what its images start from."""
    start = {"start", *IMAGE_START_DEFAULTS}
    known, other = ours.model_dump(exclude={"generator"}), theirs.model_dump(exclude={"generator"})
    for settings_of in (known, other):
        settings_of["generation"] = {
            key: value for key, value in settings_of["generation"].items() if key not in start
        }
    return known == other


def _score(folder: RunFolder) -> None:
    """Write the pool's figures, without reading test images."""
    config, data = settings.load(folder.path), open_prepared(folder.prepared)
    pool = run_pool(folder, config, open_pool(folder, config, data).folder)
    score_pool(RunContext(folder, config, data, choose_device(config.device)), pool, test=None)
