"""A sweep: phase one once, then a trial a point of the search space, run side by side by Ray Tune.

Its folder has sweep.yaml (what the trials share), sweep.json (the state of each), `pools/NN` (a phase one each) and
`trials/NNN` (a run's folder each). `resume` reads only these, and our own safetensors in Tune's folders: Tune's own
pickles name modules of the version that wrote them, and are never read.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from cluster.runs.checks import check_data_fits, check_metric
from cluster.runs.run import check, make_pool
from cluster.runtime.connection import ensure_ray, own_ray_ends, quiet_ray
from cluster.runtime.resources import reachable_resources, this_machine
from cluster.sweeps.plan import SweepPlan, metric_of, plan
from cluster.sweeps.resources import Room, check_trials_fit, concurrency, trial_bundles
from rlcas import settings
from rlcas.config import RunConfig, SweepRunConfig
from rlcas.console import phase, say, show_table
from rlcas.errors import UserError
from rlcas.reports.sweep_page import SWEEP_PAGE_FILE, write_sweep_report
from rlcas.runs.folder import ERROR_FILE, RunFolder
from rlcas.runs.images import link_once, share_images
from rlcas.runs.paths import check_is_new, data_name, naming_out
from rlcas.runs.sweep_folder import TRIALS_FOLDER, Sweep, Trial, read_sweep, sweep_table
from rlcas.settings.search_space import named, value_of
from rlcas.storage.atomic import exclusive_lock, replacing_folder, write_text
from rlcas.training.saved_classifier import MODEL_FILE
from rlcas.types import TrainingData


def sweep(stated: Mapping[str, Any]) -> Sweep:
    """Sweep into a new folder; return its table.

    Args:
        stated: settings as of `rlcas run`, and a section `sweep`; nested or dotted.

    Raises:
        UserError: a setting, a file, the folder or the demand is wrong; then no folder is made.
    """
    planned = plan(stated)
    check_tune_starts()
    assert planned.config.out is not None, "a plan has its folder"
    out = check_is_new(planned.config.out, "rlcas sweep --resume")
    for note in _checked_notes(planned):
        say(f"note: {note}")
    with _reserved(planned.config, planned.configs) as room:
        create(planned, out)
        return _run_stages(out, planned.config, room)


def resume(path: Path) -> Sweep:
    """Resume an interrupted sweep: trials that ended are kept, the others resume from their checkpoints.

    Raises:
        UserError: the folder is not a sweep's.
    """
    table, config = read_sweep(path), load(path)
    if not (waiting := _waiting(table)):
        say(f"{path} is finished")
        _show(table)
        return table
    configs = {trial.name: settings.load(table.folder(trial)) for trial in waiting}
    with _reserved(config, configs) as room:
        return _run_stages(path.absolute(), config, room)


def describe(stated: Mapping[str, Any]) -> str:
    """Return the trials of a sweep and what they demand of this machine.

    Raises:
        UserError: a setting, a file or an image is wrong.
    """
    planned = plan(stated)
    notes = _checked_notes(planned)
    total = this_machine()
    configs = list(planned.configs.values())
    side_by_side = concurrency(planned.config.sweep.concurrent, configs, total)
    ks = sorted({config.sampler.k for config in configs})
    epochs = sum(config.sampler.epochs for config in configs)
    return "\n".join(
        [
            settings.as_yaml(planned.config),
            *(f"note: {note}" for note in notes),
            *(f"trial {trial.name}: {named(trial.settings)}, on {trial.pool}" for trial in planned.trials),
            f"demand: {len(configs)} trials of {epochs} epochs in all, {side_by_side} side by side, each a process and "
            f"K={' or '.join(map(str, ks))} episodes (here: {total['CPU']:g} cores, {total['GPU']:g} GPUs)",
            f"phase one: {len(planned.pools)} times"
            if len(planned.pools) > 1
            else "phase one: once, for all trials",
            f"`rlcas run --dry-run` with these settings estimates phase one, and K={planned.config.sampler.k} episodes",
        ]
    )


def _checked_notes(planned: SweepPlan) -> list[str]:
    """Check each phase one, and that every trial fits its images; return the notes, once each.

    Raises:
        UserError: a setting, a file or an image is wrong; the line names the point of the trial.
    """
    notes: dict[str, None] = {}
    for name, pool in planned.pools.items():
        data = check(pool)
        notes |= dict.fromkeys(data.notes)
        check_metric("sweep.metric", metric_of(planned.config), data)
        for trial in planned.trials:
            if trial.pool == name:
                notes |= dict.fromkeys(_fitting(trial, planned.configs[trial.name], data))
    return list(notes)


def _fitting(trial: Trial, config: RunConfig, data: TrainingData) -> tuple[str, ...]:
    try:
        return check_data_fits(config, data)
    except UserError as error:
        raise UserError(f"sweep.over {named(trial.settings)}: {error}") from None


def load(path: Path) -> SweepRunConfig:
    """Return what the trials of a sweep's folder share."""
    return settings.of_sweep(settings.read_yaml(path / settings.SWEEP_CONFIG_FILE))


def check_tune_starts() -> None:
    """Check that Ray Tune can start a trial: it splits the path of Python at spaces.

    Raises:
        UserError: the path has one.
    """
    if " " in sys.executable:
        raise UserError(
            f"{sys.executable} has a space, at which Ray Tune splits the line that starts a trial: install rlcas into "
            "a path without spaces (`rlcas run` has no such limit)"
        )


def create(planned: SweepPlan, out: Path) -> None:
    """Make the folder with all settings, all of it or nothing.

    Raises:
        UserError: it cannot be made.
    """
    table = Sweep(
        path=out,
        name=data_name(planned.config.data),
        metric=metric_of(planned.config),
        search=planned.config.sweep.search,
        trials=planned.trials,
    )
    with naming_out(out), replacing_folder(out) as temporary:
        write_text(temporary / settings.SWEEP_CONFIG_FILE, settings.as_yaml(planned.config))
        trials = {f"{TRIALS_FOLDER}/{name}": config for name, config in planned.configs.items()}
        for name, config in {**planned.pools, **trials}.items():
            settings.save(config, temporary / name)
        # Saved where the folder is being made; it is read again from its place.
        table.path = temporary
        table.save()


def _run_stages(path: Path, config: SweepRunConfig, room: Room) -> Sweep:
    """Do what is missing of phase one, the trials and the page."""
    from cluster.sweeps.tuner import (
        run_trials,  # RLlib takes seconds to import, and what comes before does not need it
    )

    # Read under the lock: another process may have ended trials since.
    with exclusive_lock(path):
        table = read_sweep(path)
        waiting = _waiting(table)
        # Each once, in the order of the trials.
        for pool in dict.fromkeys(trial.pool for trial in waiting):
            make_pool(path / pool)
        for trial in waiting:
            link_phase_one(path / trial.pool, table.folder(trial))
            own = settings.load(table.folder(trial))  # PBT may have changed it since it was planned
            trial.settings = {key: value_of(own, key) for key in trial.settings}
            trial.status, trial.reason = "waiting", ""
        try:
            with phase(
                f"Training {len(waiting)} of {len(table.trials)} trials, {room.concurrent} side by side"
            ):
                run_trials(table, config, room)
        finally:
            write_sweep_report(path)
    _show(table)
    return table


def link_phase_one(pool: Path, trial: Path) -> None:
    """Link the images, synthesiser, pool and judge of the phase one that a trial shares into its folder."""
    shared, own = RunFolder(pool), RunFolder(trial)
    share_images(shared, own)
    for target, link in ((shared.synth, own.synth), (shared.pool, own.pool), (shared.judge, own.judge)):
        # Where the pool is given there is no synthesiser.
        if target.exists():
            link_once(target, link)


@contextlib.contextmanager
def _reserved(config: SweepRunConfig, configs: Mapping[str, RunConfig]) -> Iterator[Room]:
    """Connect to Ray, or start it, and yield what it reserves for the trials; a Ray started here ends afterwards.

    Raises:
        UserError: the trials ask for more than Ray has.
    """
    quiet_ray()
    with own_ray_ends():
        with phase("Starting Ray"):
            number = concurrency(config.sweep.concurrent, list(configs.values()), reachable_resources())
            # A process and K episodes for each trial; `ensure_ray` adds one core itself.
            workers = number * (1 + max(trial.sampler.num_workers for trial in configs.values()))
            ensure_ray(workers - 1, config.cluster.worker_niceness)
        total = ray.cluster_resources()
        bundles = {name: trial_bundles(trial, number, total) for name, trial in configs.items()}
        # Trials with the most episodes: any `number` of the others fit where these do.
        largest = sorted(bundles.values(), key=len, reverse=True)[:number]
        check_trials_fit(largest, config.cluster.start_timeout_seconds)
        yield Room(bundles, number)


def _waiting(table: Sweep) -> list[Trial]:
    # The driver writes that a trial ended, the trial its classifier: both must be there.
    return [
        trial for trial in table.trials if not (trial.ended and (table.folder(trial) / MODEL_FILE).exists())
    ]


def _show(table: Sweep) -> None:
    show_table(sweep_table(table))
    best = table.ranked()[0]
    say(f"report: {table.path / SWEEP_PAGE_FILE}")
    say(f"TensorBoard: tensorboard --logdir {shlex.quote(str(table.path / TRIALS_FOLDER))}")
    for trial in table.trials:
        if trial.status == "failed":
            say(f"trial {trial.name} failed, its traceback: {table.folder(trial) / ERROR_FILE}")
    if best.ended:
        folder = shlex.quote(str(table.folder(best)))
        say(f"best: trial {best.name}; `rlcas resume {folder}` reads the test images with its classifier")
