from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from fake_run import class_names, fake_records
from rich.console import Console
from rich.table import Table

from rlcas import console
from rlcas.tracking import epoch_view


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """A terminal of 150 columns in place of the module's Console."""
    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, width=150, highlight=False, color_system=None)
    monkeypatch.setattr(console, "_CONSOLE", made)
    return screen


def shown_in_a_log(records, num_epochs, capsys, names=None) -> list[str]:
    names = names or class_names(len(records[0].reports[0].counts_C))
    with epoch_view.epoch_view(names, num_epochs, "f1") as view:
        for record in records:
            view.show(record)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]


def test_a_log_gets_one_line_an_epoch_with_the_facts_of_the_record(capsys):
    records = fake_records(8, epochs=5)
    lines = shown_in_a_log(records, 30, capsys)
    assert len(lines) == 5
    record, line = records[2], lines[2]
    winner = record.reports[record.winner]
    assert line.startswith("epoch 3/30  ")
    assert f"{winner.reward:.3f}*" in line
    for name in ("f1", "many", "medium", "few"):
        assert f"  {name} {winner.result.metrics[name]:.3f}  " in line
    assert f"baseline {record.baseline:.3f}  " in line
    assert f"best {record.best_metric:.3f} @{record.best_epoch}  " in line


def test_arrows_mark_what_changed_since_the_incumbent_before(capsys):
    records = fake_records(2, epochs=2)
    before, after = (np.array([4, 6]), np.array([6, 4]))
    records = [
        with_winner_counts(record, counts) for record, counts in zip(records, (before, after), strict=True)
    ]
    first, second = shown_in_a_log(records, 2, capsys)
    assert "composition 4 6  " in first
    assert "composition 6↑ 4↓  " in second


def with_winner_counts(record, counts_C):
    reports = [
        dataclasses.replace(report, counts_C=counts_C) if report.episode_index == record.winner else report
        for report in record.reports
    ]
    return dataclasses.replace(record, reports=tuple(reports))


def test_a_failed_episode_is_shown_by_its_status(capsys):
    lines = shown_in_a_log(fake_records(8, epochs=4), 30, capsys)
    assert "out_of_memory" in lines[3]
    assert not any("out_of_memory" in line for line in lines[:3])


def test_the_time_left_is_the_median_epoch_times_the_epochs_left(capsys):
    records = [
        dataclasses.replace(record, seconds=seconds)
        for record, seconds in zip(fake_records(2, epochs=3), (100.0, 2.0, 3.0), strict=True)
    ]
    lines = shown_in_a_log(records, 10, capsys)
    assert lines[0].endswith("left 15 min 00 s")
    assert lines[2].endswith("left 21 s")


def test_an_empty_shot_group_is_not_available_rather_than_nan(capsys):
    record = fake_records(2, epochs=1)[0]
    (line,) = shown_in_a_log([record], 1, capsys)
    assert np.isnan(record.reports[record.winner].result.metrics["few"])
    assert "few n/a" in line
    assert "nan" not in line


def test_a_hundred_classes_are_summed_up(capsys):
    record = fake_records(100, epochs=1)[0]
    (line,) = shown_in_a_log([record], 1, capsys)
    counts_C = record.reports[record.winner].counts_C
    assert f"composition {counts_C.min()} to {counts_C.max()}, sum {counts_C.sum()}, ↑0 ↓0" in line


def test_a_terminal_shows_a_table_of_the_last_twelve_epochs(terminal):
    with epoch_view.epoch_view(class_names(2), 30, "f1") as view:
        for record in fake_records(2, epochs=20):
            view.show(record)
    last_frame = terminal.getvalue().split("composition")[-1]
    assert " 9/30" in last_frame
    assert "20/30" in last_frame
    assert " 8/30" not in last_frame


def test_a_line_said_is_never_wrapped_nor_read_as_markup(capsys):
    text = "[bold]" + "x" * 300
    console.say(text)
    assert capsys.readouterr().out == text + "\n"


def test_a_phase_says_its_title_and_measures_itself(capsys):
    with console.phase("train the denoiser") as watch:
        pass
    assert 0 <= watch.seconds < 60
    assert capsys.readouterr().out.startswith("train the denoiser ...\ntrain the denoiser: done in 0.")


def test_a_phase_that_fails_is_not_announced_as_done(capsys):
    with pytest.raises(RuntimeError, match="no memory"), console.phase("sample"):
        raise RuntimeError("no memory")
    assert "done" not in capsys.readouterr().out


@pytest.mark.parametrize(("total", "lines"), [(1000, 10), (7, 7), (1, 1)])
def test_progress_in_a_log_is_a_line_every_tenth(total, lines, capsys):
    with console.progress("sampling", total) as bar:
        for _ in range(total):
            bar.advance(note="guidance 1.5")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    assert said[-1] == f"sampling: 100 %  {total}/{total}  left 0.0 s  guidance 1.5"


def test_a_download_counts_megabytes(capsys):
    with console.progress("breastmnist.npz", 40_000_000, unit="B") as bar:
        bar.advance(10_000_000)
    assert capsys.readouterr().out.startswith("breastmnist.npz: 25 %  10.0/40.0 MB  left ")


def test_progress_on_a_terminal_is_a_bar_with_its_note(terminal):
    with console.progress("denoiser [3/4]", 40) as bar:
        bar.advance(40, "loss 0.12")
    assert "denoiser [3/4]" in terminal.getvalue()
    assert "40/40" in terminal.getvalue()
    assert "loss 0.12" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (12.4, "12 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_as_a_person_says_them(seconds, text):
    assert console.format_seconds(seconds) == text


def test_a_table_too_wide_for_the_terminal_is_printed_in_parts_that_lose_no_figure() -> None:
    table = Table(title="figures", box=None, pad_edge=False)
    for name in ("class", "precision", "recall", "density"):
        table.add_column(name)
    table.add_row("all", "0.12345678", "0.23456789", "0.34567890")
    assert console.parts_of(table, 60) == [table]
    parts = console.parts_of(table, 30)
    written = io.StringIO()
    for part in parts:
        Console(width=30, file=written).print(part)
    text = written.getvalue()
    headers = [[column.header for column in part.columns] for part in parts]
    assert headers == [["class", "precision"], ["class", "recall"], ["class", "density"]]
    assert all(figure in text for figure in ("0.12345678", "0.23456789", "0.34567890"))
    assert text.count("figures") == 1 and "…" not in text
