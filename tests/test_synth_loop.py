from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import synth.training.loop
from rlcas.errors import UserError
from synth.training.checkpoint import load_checkpoint
from synth.training.loop import Schedule, Training, cosine, num_steps
from synth.training.progress import NotFiniteError, Reporter
from synth.training.workers import ALONE, Workers, join


class Line:
    """Fits y = 2 x on inputs drawn by the step's number (a `synth.training.loop.TrainingObjective`)."""

    def __init__(self, nan_step: int | None = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 1)
        self._nan_step = nan_step

    def losses(self, module: nn.Module, step: int) -> dict[str, torch.Tensor]:
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        error = (module(inputs) - 2 * inputs.sum(1, keepdim=True)).square().mean()
        if step == self._nan_step:
            error = error * torch.nan
        return {"total": error, "error": error}


def schedule(steps: int = 20, **changed: object) -> Schedule:
    settings = {
        "part": "line",
        "steps": steps,
        "lr": 0.1,
        "lr_factor": cosine,
        "ema_decays": (0.5, 0.9),
        "checkpoint_steps": 6,
        "remedy": "lower the rate",
    }
    return Schedule(**{**settings, **changed})


def trained(checkpoint: Path, objective: Line | None = None, **changed: object) -> Training:
    training = Training(objective or Line(), schedule(**changed), ALONE)
    training.run(checkpoint, Reporter(progress=False))
    return training


def test_the_learning_rate_follows_its_schedule() -> None:
    assert [cosine(way) for way in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    training = Training(Line(), schedule(steps=4), ALONE)
    rates = []
    for step in range(4):
        training.step(step)
        rates.append(training._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])


def test_steps_are_epochs_over_the_images_up_to_the_limit() -> None:
    assert num_steps(546, 200, 32, None) == 3413
    assert num_steps(546, 200, 32, 100) == 100
    assert num_steps(10, 1, 32, 100) == 1


def test_the_loop_is_plain_adamw(tmp_path: Path) -> None:
    objective, reference = Line(), Line()
    Training(objective, schedule(weight_decay=0.1), ALONE).run(tmp_path / "c", Reporter(progress=False))
    optimizer = torch.optim.AdamW(reference.module.parameters(), lr=0.1, weight_decay=0.1)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / 20))
    for step in range(20):
        optimizer.zero_grad()
        reference.losses(reference.module, step)["total"].backward()
        optimizer.step()
        decay.step()
    for ours, theirs in zip(objective.module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("died_after", [6, 12, 13, 19])
def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path: Path, died_after: int) -> None:
    class DiedError(Exception):
        pass

    class Dying(Line):
        def losses(self, module: nn.Module, step: int) -> dict[str, torch.Tensor]:
            if step == died_after:
                raise DiedError
            return super().losses(module, step)

    whole = trained(tmp_path / "whole")
    with pytest.raises(DiedError):
        trained(tmp_path / "cut", Dying())
    steps_seen: list[int] = []
    objective = Line()
    resumed = Training(objective, schedule(), ALONE)
    resumed.run(
        tmp_path / "cut", Reporter(progress=False, on_step=lambda _, step, __, ___: steps_seen.append(step))
    )
    assert steps_seen == list(range(died_after // 6 * 6 + 1, 21))
    first, second = (load_file(tmp_path / name) for name in ("whole", "cut"))
    assert set(first) == set(second) and len(first) == 2 * 3 + 2 * 3
    assert all(torch.equal(first[name], second[name]) for name in first)
    for decay, average in whole.ema.averages.items():
        assert all(torch.equal(average[name], resumed.ema.averages[decay][name]) for name in average)


def test_a_finished_part_is_not_trained_again_and_returns_its_figures(tmp_path: Path) -> None:
    trained(tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    objective = Line(nan_step=0)
    figures = Training(objective, schedule(), ALONE).run(tmp_path / "c", Reporter(progress=False))
    assert set(figures) == {"error"} and math.isfinite(figures["error"])
    assert (tmp_path / "c").read_bytes() == before


def test_the_first_step_that_is_not_finite_is_named_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^line, step 8: error is nan: lower the rate; the last good .* stays in"
    ):
        trained(tmp_path / "c", Line(nan_step=7), steps=1000)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "c").values())
    with pytest.raises(UserError, match=r"^line, step 3: error is nan: lower the rate$"):
        trained(tmp_path / "none", Line(nan_step=2))
    assert not (tmp_path / "none").exists()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The loss of the sixth step is finite, but the weights after it are not."""

    class Exploding(Line):
        def losses(self, module: nn.Module, step: int) -> dict[str, torch.Tensor]:
            losses = super().losses(module, step)
            if step == 5:
                module.weight.register_hook(lambda gradient: gradient * torch.inf)
            return losses

    with pytest.raises(UserError, match=r"line, step 6: weights are not finite: lower the rate$"):
        trained(tmp_path / "c", Exploding())
    assert not (tmp_path / "c").exists()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    trained(checkpoint)
    whole = checkpoint.read_bytes()
    message = r"c is truncated, altered or of other settings \(.+\): delete it, and this part is trained again"
    for content in (whole[:-10], whole[:20], b"", b"{}" * 50):
        checkpoint.write_bytes(content)
        with pytest.raises(UserError, match=message):
            trained(checkpoint)
    checkpoint.write_bytes(whole)
    with pytest.raises(UserError, match=message):
        trained(checkpoint, ema_decays=(0.5,))
    save_file({"x": torch.zeros(1)}, checkpoint)
    with pytest.raises(UserError, match=message):
        trained(checkpoint)


def test_a_single_process_needs_no_process_group() -> None:
    assert Workers.joined() == ALONE and ALONE.leads
    rows = torch.arange(6).view(3, 2)
    assert torch.equal(ALONE.share(rows), rows) and torch.equal(ALONE.gather(rows, 3), rows)


def test_figures_are_read_at_every_hundredth_and_the_latest_kept() -> None:
    seen = []
    with Reporter(progress=False, on_step=lambda *step: seen.append(step)).part("work", 200) as part:
        for done in range(1, 201):
            part.update(done, {"x": torch.tensor(float(done))})
        assert part.latest == {"x": 200.0}
        with pytest.raises(NotFiniteError, match="work, step 201: x is inf"):
            part.update(201, {"x": math.inf})
            part.read()
    assert [step for _, step, _, _ in seen] == list(range(2, 201, 2))


def _saves_on_a_full_disk(rank: int, folder: Path) -> None:
    """Train as one of two; the first cannot write its checkpoint."""
    with two_workers(rank, folder):
        if rank == 0:
            synth.training.loop.save_checkpoint = full_disk
        with pytest.raises(UserError, match="the disk is full"):
            Training(Line(), schedule(), Workers.joined()).run(folder / "c", Reporter(progress=False))


def _reads_late(rank: int, folder: Path) -> None:
    """Resume as one of two; the first deletes the checkpoint as soon as it has finished."""
    with two_workers(rank, folder):
        if rank == 1:
            synth.training.loop.load_checkpoint = load_late
        Training(Line(), schedule(), Workers.joined()).run(folder / "c", Reporter(progress=False))
        if rank == 0:
            (folder / "c").unlink()


@contextlib.contextmanager
def two_workers(rank: int, folder: Path) -> Iterator[None]:
    """Join a group of two and check that leaving it ends its threads."""
    join(
        "gloo",
        init_method=f"file://{folder}/group",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    assert any("gloo" in name for name in names_of_threads())
    yield
    torch.distributed.destroy_process_group()
    assert not any("gloo" in name for name in names_of_threads())


def names_of_threads() -> list[str]:
    return [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]


def full_disk(*_: object, **__: object) -> None:
    raise UserError("the disk is full")


def load_late(checkpoint: Path, *state: object) -> tuple[int, dict[str, float]]:
    time.sleep(1.0)
    return load_checkpoint(checkpoint, *state)


@pytest.mark.medium
@pytest.mark.parametrize("work", [_saves_on_a_full_disk, _reads_late])
def test_workers_wait_for_each_other_at_checkpoints_and_end_together(
    work: Callable[[int, Path], None], tmp_path: Path
) -> None:
    if work is _reads_late:
        trained(tmp_path / "c")
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
