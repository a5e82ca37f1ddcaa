"""Ctrl-C while epochs train: once ends after the epoch, twice at once; by the real command, as a terminal sends it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import held_run
import pytest
from test_chaos import same_run
from test_run import rlcas

from cluster.interrupt import TOLD, first_interrupt_waits
from rlcas import records


def test_the_first_interrupt_waits_and_the_second_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), first_interrupt_waits() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        assert capsys.readouterr().err == f"{TOLD}\n"
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handler_is_given_back_without_an_interrupt() -> None:
    with first_interrupt_waits():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_another_program_stays() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        with first_interrupt_waits() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT] and not interrupt.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    seen = []

    def enter() -> None:
        with first_interrupt_waits() as interrupt:
            seen.append((signal.getsignal(signal.SIGINT), interrupt.asked))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, False)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a loss that can be held up, and an undisturbed run."""
    with held_run.home(tmp_path_factory.mktemp("home")) as home:
        yield home


def interrupt(process: subprocess.Popen[str]) -> None:
    """Send what a terminal sends: to the command and all that it started."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
def test_one_interrupt_ends_after_the_epoch_with_a_checkpoint(home: Path) -> None:
    """The checkpoint is made though none is due; the workers live on, so that nothing is run again."""
    with held_run.started(home, "once", "--cluster.checkpoint_epochs", "4") as process:
        interrupt(process)
        held_run.read_until(TOLD, process)
        held_run.release(home)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error.splitlines()[-1] == (
        f"rlcas: interrupted after epoch 1, which is kept; `rlcas resume {home / 'once'}` goes on"
    )
    (epoch,) = records.read_epochs(home / "once")
    assert epoch["retries"] == [0, 0] and epoch["statuses"] == ["ok", "ok"]
    assert [path.name for path in (home / "once/checkpoints").iterdir()] == ["epoch-0001"]
    assert rlcas("resume", "once", cwd=home).returncode == 0
    assert same_run(home / "once", home / "undisturbed")


@pytest.mark.slow
def test_two_interrupts_end_while_the_epoch_is_under_way(home: Path) -> None:
    with held_run.started(home, "twice") as process:
        interrupt(process)
        held_run.read_until(TOLD, process)
        interrupt(process)
        _, error = process.communicate()
        assert (home / held_run.HOLD).exists(), "the epoch could not have ended"
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("rlcas: interrupted; `rlcas resume DIR` goes on")
    assert records.read_epochs(home / "twice") == []
    held_run.release(home)
    assert rlcas("resume", "twice", cwd=home).returncode == 0
    assert same_run(home / "twice", home / "undisturbed")
