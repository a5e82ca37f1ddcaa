"""Ctrl-C while epochs train: once ends after the epoch, twice at once; by the real command, as a terminal sends it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import held_run
import pytest
from ray.tune.tune import _setup_signal_catching
from test_chaos import same_run
from test_run import rlcas

from cluster.runtime.interrupts import ENDING_NOTICE, SIGNALS, first_interrupt_waits
from cluster.runtime.tune import preserving_signal_handlers
from rlcas.runs import epoch_log


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_interrupt_waits_and_the_second_does_not(
    first: signal.Signals, second: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), first_interrupt_waits() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(first)
        assert interrupt.asked
        assert capsys.readouterr().err == f"{ENDING_NOTICE}\n"
        signal.raise_signal(second)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_the_handler_is_given_back_without_an_interrupt() -> None:
    with first_interrupt_waits():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", SIGNALS)
def test_a_handler_of_another_program_stays(number: signal.Signals) -> None:
    caught: list[int] = []
    before = signal.signal(number, lambda number, frame: caught.append(number))
    try:
        with first_interrupt_waits() as interrupt:
            signal.raise_signal(number)
        assert caught == [number] and not interrupt.asked
    finally:
        signal.signal(number, before)


def test_what_a_past_search_of_tune_left_is_no_handler_of_another_program() -> None:
    """A search by the user's own `Tuner`, whose first Ctrl-C after it would go nowhere; ours leave none."""
    with preserving_signal_handlers():
        _setup_signal_catching()
        assert signal.getsignal(signal.SIGINT).__module__ == "ray.tune.tune"
        with first_interrupt_waits() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_that_ignores_ctrl_c_still_heeds_sigterm() -> None:
    """As a shell's jobs in the background do."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with first_interrupt_waits() as interrupt:
            signal.raise_signal(signal.SIGINT)
            assert not interrupt.asked
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
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


def interrupt(process: subprocess.Popen[str]) -> None:
    """Send what a terminal sends: to the command and all that it started."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
def test_one_interrupt_ends_after_the_epoch_and_two_at_once_and_the_run_resumes_to_the_same_bits(
    held_home: Path,
) -> None:
    """The checkpoint is made though none is due; the workers live on, so that nothing is run again."""
    run = held_home / "run"
    with held_run.started(held_home, *held_run.words("run"), "--cluster.checkpoint_epochs", "4") as process:
        interrupt(process)
        held_run.read_until(ENDING_NOTICE, process)
        held_run.release(held_home)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error.splitlines()[-1] == (
        f"rlcas: interrupted after epoch 1, which is saved; `rlcas resume {run}` continues"
    )
    (epoch,) = epoch_log.read_epochs(run)
    assert epoch["retries"] == [0, 0] and epoch["statuses"] == ["ok", "ok"]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-0001"]
    with held_run.started(held_home, "resume", "run") as process:
        interrupt(process)
        held_run.read_until(ENDING_NOTICE, process)
        interrupt(process)
        _, error = process.communicate()
        assert (held_home / held_run.HOLD).exists(), "the epoch could not have ended"
    assert process.returncode == 130
    assert error.splitlines()[-1] == f"rlcas: interrupted; `rlcas resume {run}` resumes it"
    assert epoch_log.read_epochs(run) == [epoch]
    held_run.release(held_home)
    assert rlcas("resume", "run", cwd=held_home).returncode == 0
    assert same_run(run, held_home / "undisturbed")
