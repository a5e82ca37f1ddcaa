from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
from fake_run import class_names, fake_records, gallery
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from rlcas.config import RunConfig
from rlcas.tracking import charts
from rlcas.tracking.tensorboard import EVENTS_FOLDER, Tracker


def write(folder, records) -> None:
    with Tracker(folder, class_names(len(records[0].reports[0].counts_C))) as tracker:
        for record in records:
            tracker.epoch(record)


def read(folder, part="epochs") -> EventAccumulator:
    return EventAccumulator(str(folder / EVENTS_FOLDER / part)).Reload()


def series(events, tag) -> dict[int, float]:
    points = [(event.step, event.value) for event in events.Scalars(tag)]
    assert len(dict(points)) == len(points), f"{tag} has a step twice"
    return dict(points)


def test_the_events_read_back_equal_the_records(tmp_path):
    records = fake_records(8, epochs=4, drift=0.1)
    write(tmp_path, records)
    events = read(tmp_path)
    for record in records:
        t, winner = record.epoch, record.reports[record.winner]
        expected = {
            "composition/00_fibroadenoma": winner.counts_C[0],
            "policy/05_phyllodes_tumour/less": record.probabilities_C3[5, 0],
            "policy/05_phyllodes_tumour/more": record.probabilities_C3[5, 2],
            "policy/entropy": record.entropy_C.mean(),
            "reward/episode_0": record.reports[0].reward,
            "reward/mean": np.nanmean([report.reward for report in record.reports]),
            "reward/baseline": record.baseline,
            "reward/winner": record.winner,
            "reward/advantage_1": record.reports[1].advantage,
            "policy/distance_from_uniform": abs(record.probabilities_C3 - 1 / 3).max(),
            "composition/sum": winner.counts_C.sum(),
            "composition/drawn": winner.num_synthetic,
            "composition/clamped": sum(report.num_clamped for report in record.reports),
            "images/trained": 4000 * sum(report.valid for report in record.reports),
            "time/learning_seconds": 0.04,
            "metrics/f1": winner.result.metrics["f1"],
            "metrics/few": winner.result.metrics["few"],
            "time/epoch_seconds": record.seconds,
        }
        found = {tag: series(events, tag)[t] for tag in expected}
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_failed_episode_has_no_reward_and_is_counted(tmp_path):
    write(tmp_path, fake_records(2, epochs=5))
    events = read(tmp_path)
    assert list(series(events, "faults/failed").values()) == [0, 0, 0, 1, 0]
    assert list(series(events, "reward/episode_2")) == [1, 2, 3, 5]


@pytest.mark.parametrize(("num_classes", "scalars"), [(32, True), (33, False)])
def test_more_than_thirty_two_classes_are_shown_as_histograms(num_classes, scalars, tmp_path):
    record = fake_records(num_classes, epochs=1)[0]
    write(tmp_path, [record])
    events = read(tmp_path)
    assert ("composition/00_finding_000" in events.Tags()["scalars"]) is scalars
    if not scalars:
        (histogram,) = events.Histograms("composition/counts")
        assert histogram.histogram_value.num == num_classes
        assert histogram.histogram_value.sum == record.reports[record.winner].counts_C.sum()


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path, monkeypatch):
    number_event_files_from_zero(monkeypatch)
    before = fake_records(2, epochs=5)
    after = [
        dataclasses.replace(record, baseline=record.baseline + 1) for record in fake_records(2, epochs=6)[3:]
    ]
    write(tmp_path, before)
    write(tmp_path, after)
    expected = {record.epoch: record.baseline for record in before[:3] + after}
    assert series(read(tmp_path), "reward/baseline") == pytest.approx(expected, rel=1e-6)


def number_event_files_from_zero(monkeypatch) -> None:
    """Two files of one second are read in the order of their numbers, as text: 9 after 10."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def test_the_parts_of_the_synthesiser_count_their_own_steps(tmp_path):
    with Tracker(tmp_path, class_names(2)) as tracker:
        tracker.synthesis("autoencoder", 500, {"l1": 0.25, "kl": 8.0})
        tracker.synthesis("denoiser", 10, {"noise": 0.5})
    assert series(read(tmp_path, "autoencoder"), "synthesis/autoencoder/l1") == {500: 0.25}
    assert series(read(tmp_path, "autoencoder"), "synthesis/autoencoder/kl") == {500: 8.0}
    assert series(read(tmp_path, "denoiser"), "synthesis/denoiser/noise") == {10: 0.5}


@pytest.mark.parametrize("kinds", [4, 1])
def test_the_gallery_is_a_grid_a_class_of_the_kinds_there_are(kinds, tmp_path):
    arrays = dict(list(gallery(2, size_px=16).items())[:kinds])
    with Tracker(tmp_path, class_names(2)) as tracker:
        tracker.gallery(arrays)
    (image,) = read(tmp_path, "images").Images("images/00_fibroadenoma")
    assert (image.height, image.width) == (kinds * 16, 6 * 16)


def test_every_chart_of_an_epoch_says_what_it_shows(tmp_path):
    record = fake_records(8, epochs=1)[0]
    write(tmp_path, [record])
    events = read(tmp_path)
    for tag in events.Tags()["scalars"]:
        assert events.SummaryMetadata(tag).summary_description == charts.meaning(tag) != ""
    assert charts.meaning("policy/05_phyllodes/more").endswith("agent of 05_phyllodes takes its action 'more'.")
    assert charts.meaning("synthesis/denoiser/loss") == ""


@pytest.mark.parametrize("num_classes", [8, 33])
def test_every_chart_of_the_layout_shows_something_and_every_scalar_has_its_chart(tmp_path, num_classes):
    """TensorBoard matches the layout's patterns from the start of a tag."""
    names = class_names(num_classes)
    with Tracker(tmp_path, names) as tracker:
        tracker.settings(RunConfig())
        tracker.epoch(fake_records(num_classes, epochs=1)[0])
    config = read(tmp_path, "run").Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = Layout.FromString(config)
    patterns = [chart.multiline.tag for category in layout.category for chart in category.chart]
    tags = read(tmp_path).Tags()["scalars"]
    for pattern in itertools.chain(*patterns):
        assert any(re.match(pattern, tag) for tag in tags), pattern
    shown = {tag for tag in tags for pattern in itertools.chain(*patterns) if re.match(pattern, tag)}
    assert {tag for tag in tags if not tag.startswith("metrics/")} - shown == {
        *(tag for tag in tags if tag.endswith("/same")),
        "reward/mean",
        "composition/drawn",
    }


def test_the_seconds_of_each_stage_are_kept(tmp_path):
    with Tracker(tmp_path, class_names(2)) as tracker:
        tracker.stages({"denoiser": 12.5})
    assert series(read(tmp_path, "stages"), "stages/denoiser_seconds") == {0: 12.5}


def test_the_settings_are_kept_as_text(tmp_path):
    with Tracker(tmp_path, class_names(2)) as tracker:
        tracker.settings(RunConfig(seed=7))
    (event,) = read(tmp_path, "run").Tensors("settings/text_summary")
    assert b"\n    seed: 7\n" in event.tensor_proto.string_val[0]


def test_the_notes_on_the_data_are_a_list_in_the_text(tmp_path):
    with Tracker(tmp_path, class_names(2)) as tracker:
        tracker.settings(RunConfig())
        tracker.notes(("one", "two"))
    (event,) = read(tmp_path, "run").Tensors("notes/text_summary")
    assert event.tensor_proto.string_val[0] == b"- one\n- two"
