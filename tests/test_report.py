from __future__ import annotations

import dataclasses
import json
import re
import warnings
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fake_run import BREAST_8, fake_records, write_run
from PIL import Image

from rlcas import settings
from rlcas.errors import UserError
from rlcas.reports import write_report
from rlcas.reports.canvas import COLOURS
from rlcas.reports.facts import read_run
from rlcas.runs.epoch_log import EPOCHS_FILE, append_epoch
from rlcas.storage.atomic import write_json

SECTIONS = ["images", "agents", "training", "test", "synthesis", "failures", "settings", "provenance"]
CHARTS = {
    "compositions",
    "probabilities",
    "distance",
    "rewards",
    "validation",
    "confusion",
    "recall_by_size",
    "losses",
}
VOID = {"meta", "img"}


@dataclass
class Page(HTMLParser):
    """Parses the page like a browser: text, sections, table rows, attributes."""

    source: str
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open_tags.append(tag)
        if tag == "section":
            self.sections.append(dict(attrs)["id"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open_tags:
            self.words += data.split()
        if {"th", "td"} & set(self.open_tags):
            self.rows[-1][-1] = (self.rows[-1][-1] + " " + data.strip()).strip()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def row(self, *start: str) -> list[str]:
        (found,) = [row for row in self.rows if tuple(row[: len(start)]) == start]
        return found[len(start) :]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "eight", num_classes=8, epochs=5)


@pytest.fixture(scope="module")
def page(run) -> Page:
    return page_of(run)


@pytest.fixture
def small_run(tmp_path) -> Path:
    return write_run(tmp_path / "two", num_classes=2, epochs=3)


@pytest.mark.parametrize(("num_classes", "text"), [(3, "The dot is the peak"), (40, "the count at its peak")])
def test_agents_that_fit_curves_have_them_drawn_where_a_class_has_them(tmp_path, num_classes, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        page = page_of(write_run(tmp_path / "run", num_classes, epochs=3, curved=True))
    assert (tmp_path / "run" / "figures" / "responses.png").exists()
    assert text in page.text


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        ({"agents": "constant"}, "A control: the composition stayed as it was at first"),
        ({"agents": "uniform"}, "They are frozen there, as a control: this run is a best-of-3 search"),
        ({"agents": "pbt"}, "A control: population-based training changed the counts of 3 members"),
        ({"replay": "/runs/one"}, "A control: the surviving compositions of /runs/one were replayed"),
        ({"agents": "response"}, "Agents response : the action probabilities moved at most"),
    ],
)
def test_a_control_is_described_as_one(tmp_path, sampler, text):
    folder = write_run(tmp_path / "run", num_classes=2, epochs=2)
    stated = {"data": "breastmnist", "sampler": sampler}
    (folder / "config.yaml").write_text(json.dumps(settings.of(stated).model_dump(mode="json")))
    assert text in page_of(folder).text


def test_retries_are_shown(page):
    assert "Episodes were run again 1 time, because a worker or its node died" in page.text


def test_every_section_appears_once_and_every_tag_is_closed(page):
    assert page.sections == SECTIONS
    assert page.open_tags == []
    assert "Not a medical device." in page.text


def test_the_test_metrics_are_on_the_page_with_their_intervals(run, page):
    figures = json.loads((run / "metrics.json").read_text())["test"]
    assert page.row("Macro F1") == ["0.573", "0.541 to 0.605"]
    assert page.row("Macro recall") == [f"{figures['recall']:.3f}", "0.551 to 0.622"]
    assert page.row("Accuracy") == [f"{figures['acc']:.3f}", ""]
    assert page.row("Medium-shot recall") == ["n/a", ""]
    assert page.row("How many") == [str(figures["n"]), ""]
    assert "Macro F1 0.573 0.541 to 0.605 Macro recall" in page.text


def test_each_class_has_its_counts_and_recall_in_a_row(run, page):
    data = json.loads((run / "prepared" / "data.json").read_text())
    figures = json.loads((run / "metrics.json").read_text())["test"]
    for c, name in enumerate(BREAST_8):
        assert page.row(str(c), name) == [
            str(data["class_counts"]["train"][c]),
            str(sum(figures["confusion"][c])),
            f"{figures['per_class_recall'][c]:.3f}",
            "",
        ]


def test_the_synthesis_metrics_name_their_features_and_the_pool_is_compared_with_chance(page):
    kid = "0.0312 0.0271 to 0.0353"
    shared = [kid, "0.710", "0.420", "1.130", "0.630", "0.93", "88.2", "0.004", "36"]
    assert page.row("all") == ["3935", "2400", "41.3", *shared, "0.412"]
    assert page.row(BREAST_8[1], "966") == ["300", "n/a", *shared, "0.689"]
    assert "2400 synthetic against 3935 real training images. Distances in resnet18 (D = 512)" in page.text
    assert "0.014 of 562 held-out real images are copies" in page.text
    assert (
        "0.019 of the synthetic ones were before marked copies were left out. Sketch skill 0.432." in page.text
    )
    assert f"{BREAST_8[1]} 1 of 300 (1 by confidence), " in page.text
    assert "macro recall of 0.412 on 1124 real test images" in page.text
    assert "(95 % interval 0.371 to 0.452; chance 0.125)." in page.text


def test_a_pool_whose_interval_includes_chance_is_reported_as_uninformative(small_run):
    assert "chance 0.500): the pool has not been shown to teach its classes." in page_of(small_run).text


@pytest.mark.parametrize(("drift", "best_of_k"), [(0.049, True), (0.051, False)])
def test_policies_near_uniform_are_called_a_best_of_k_search(drift, best_of_k, tmp_path):
    text = page_of(write_run(tmp_path / "run", num_classes=2, epochs=2, drift=drift)).text
    assert f"moved at most {drift:.3f} from uniform" in text
    assert ("best-of-3 search" in text) == best_of_k


def test_the_kept_epoch_and_its_metric_are_shown(run, page):
    last = read_run(run).epochs[-1]
    assert f"5 of 30 epochs, 3 episodes each. Kept: epoch {last['best_epoch']}," in page.text
    assert f"validation f1 of {last['best_metric']:.3f}" in page.text


def test_a_failed_episode_is_shown_with_its_traceback_as_text(page):
    assert "1 of 15 episodes failed." in page.text
    assert "epoch 4, episode 2: out_of_memory" in page.text
    assert "torch.OutOfMemoryError: <b>tried to allocate 2 GiB</b>" in page.text


def test_names_cannot_run_or_break_the_page(page):
    assert "script" not in page.tags
    assert page.text.count("<script>document.title='run by a class name'</script>") >= 2


def test_names_with_mathematical_signs_and_other_scripts_are_drawn_as_they_are(small_run):
    path = small_run / "prepared" / "data.json"
    names = [r"$\frac{", "乳腺 <&>"]
    write_json(path, {**json.loads(path.read_text()), "class_names": names})
    text = page_of(small_run).text
    assert all(text.count(name) >= 4 for name in names)  # gallery, table and two figures


def test_the_page_needs_nothing_from_elsewhere(page):
    links = [value for key, value in page.attributes if key in ("src", "href", "xlink:href", "data", "srcset")]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"url\((?!#)|@import", page.source)
    assert "link" not in page.tags


def test_every_image_of_the_gallery_is_shown_with_its_sketch(run, page):
    gallery = np.load(run / "gallery.npz")
    assert page.tags.count("img") == sum(gallery[key].shape[0] * gallery[key].shape[1] for key in gallery)


def test_the_figures_are_png_files_and_on_the_page(run, page):
    files = sorted((run / "figures").iterdir())
    assert {file.name for file in files} == {f"{name}.png" for name in CHARTS}
    for file in files:
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert image.width > 600
    assert page.tags.count("svg") == len(CHARTS)
    assert {value for key, value in page.attributes if key == "id"} >= CHARTS


def test_the_confusion_figure_shows_the_shares_of_each_row(run, page):
    counts_CC = np.array(json.loads((run / "metrics.json").read_text())["test"]["confusion"])
    shares_CC = counts_CC / counts_CC.sum(axis=1, keepdims=True)
    figure = page.source[page.source.index('id="confusion"') : page.source.index('id="recall_by_size"')]
    shown = [float(share) for share in re.findall(r">(\d\.\d{3})</text>", figure)]
    assert sorted(shown) == pytest.approx(sorted(shares_CC[counts_CC > 0]), abs=5.1e-4)


def test_the_figures_take_the_colours_of_the_page_in_light_and_dark(page):
    figures = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert {f"var(--{name})" in figures for name in COLOURS} == {True}
    assert not [light for light, _ in COLOURS.values() if light in figures]
    assert page.source.count("prefers-color-scheme: dark") == 1


def test_writing_again_changes_no_byte(small_run):
    page = write_report(small_run)
    first = {path: path.read_bytes() for path in (page, *(small_run / "figures").iterdir())}
    write_report(small_run)
    assert {path: path.read_bytes() for path in first} == first


def test_a_hundred_classes_are_heat_maps_and_the_ends_of_the_tail(tmp_path):
    page = page_of(write_run(tmp_path / "hundred", num_classes=100, epochs=2))
    assert "the largest and the smallest 4 of 100 classes" in page.text
    assert page.tags.count("img") == 8 * 2 * 2 * 6
    assert "Leaning of each class’s agent" in page.text
    assert len(page.row("99", "finding 099")) == 4


def test_settings_seed_versions_and_seconds_are_on_the_page(page):
    assert "baseline_gamma" in page.text
    assert page.row("seed") == ["7"]
    assert page.row("torch") == ["2.15.0"]
    assert page.row("sampler") == ["7300.500 s", "2 h 01 min"]


def test_the_page_of_a_run_that_has_just_started_names_what_is_missing(small_run):
    for path in sorted(small_run.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif path.name != "config.yaml":
            path.unlink()
    page = page_of(small_run)
    assert page.sections == SECTIONS
    for what in ("prepared data", "epochs of the sampler", "example images", "test figures"):
        assert what in page.text
    assert "No episode has ended yet." in page.text
    assert "svg" not in page.tags


def test_a_run_without_test_figures_shows_its_epochs_and_timings(small_run):
    (small_run / "metrics.json").unlink()
    (small_run / "timings.json").write_text('{"pool": 65.5}')
    with (small_run / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 4, "torn')
    page = page_of(small_run)
    assert "This run is not finished. Not there yet: test figures." in page.text
    assert "3 of 30 epochs" in page.text
    assert page.row("pool") == ["65.500 s", "1 min 06 s"]
    assert page.tags.count("svg") == len(CHARTS) - 2


def test_patients_get_a_column_of_their_own(small_run):
    metrics = json.loads((small_run / "metrics.json").read_text())
    per_patient = {**metrics["test"], "f1": 0.6543, "n": 77}
    write_json(small_run / "metrics.json", {**metrics, "test_per_patient": per_patient})
    page = page_of(small_run)
    assert page.row("Macro F1") == ["0.573", "0.541 to 0.605", "0.654"]
    assert page.row("How many")[-1] == "77"


@pytest.mark.parametrize("num_classes", [2, 12, 13])
def test_the_offset_of_the_predictions_is_named(num_classes, tmp_path, page):
    assert "subtract an offset" not in page.text
    run = write_run(tmp_path / "run", num_classes=num_classes, epochs=2)
    metrics = json.loads((run / "metrics.json").read_text())
    offset_C = np.linspace(1.2, -0.6, num_classes)
    write_json(run / "metrics.json", {**metrics, "offset": offset_C.tolist()})
    names = read_run(run).class_names
    text = page_of(run).text
    assert f"{names[0]} +1.20" in text and f"{names[-1]} -0.60" in text
    assert (f"{names[1]} {offset_C[1]:+.2f}" in text) == (num_classes < 13)
    assert ("(the least and the largest of 13)" in text) == (num_classes == 13)
    write_json(run / "metrics.json", {**metrics, "offset": ["much"]})
    with pytest.raises(UserError, match=r"metrics\.json is truncated or altered \(offset\.0"):
        read_run(run)


def test_a_class_without_test_images_has_no_recall_and_is_named(small_run):
    metrics = json.loads((small_run / "metrics.json").read_text())
    benign, malignant = json.loads((small_run / "prepared" / "data.json").read_text())["class_names"]
    (first, second), _ = metrics["test"]["confusion"]
    absent = {
        "confusion": [[first, second], [0, 0]],
        "per_class_recall": [0.75, None],
        "absent_classes": [malignant],
        "averaged_classes": {"f1": [benign, malignant], "recall": [benign]},
    }
    patients = {**metrics["test"], **absent, "averaged_classes": {"f1": [benign], "recall": [benign]}}
    test = {**metrics["test"], **absent}
    write_json(small_run / "metrics.json", {**metrics, "test": test, "test_per_patient": patients})
    page = page_of(small_run)
    assert page.row("1", malignant)[-3:] == ["0", "n/a", ""]
    assert (
        f"No test image is of class '{malignant}': macro figures are over the other classes; "
        f"F1 and precision count '{malignant}' as 0, which was predicted." in page.text
    )
    assert f"No test patient is of class '{malignant}': macro figures are over the other classes." in page.text
    assert page.tags.count("meter") == 1


def test_a_pool_of_ones_own_is_named_and_its_missing_figures_are_na(small_run):
    config = json.loads((small_run / "config.yaml").read_text())
    (small_run / "config.yaml").write_text(json.dumps({**config, "pool": "folder:<mine>"}))
    (small_run / "synthesis_log.jsonl").unlink()
    metrics = json.loads((small_run / "metrics.json").read_text())
    metrics["synthesis"].update(sketch_skill=None, pool_only=None)
    write_json(small_run / "metrics.json", metrics)
    page = page_of(small_run)
    assert "Sketch skill n/a." in page.text
    assert page.row("all")[-1] == "36"
    assert "The pool was given (folder:<mine>)" in page.text
    assert "trained on the pool alone" not in page.text
    assert "not finished" not in page.text


def test_colour_images_are_shown_in_colour(small_run):
    gallery = dict(np.load(small_run / "gallery.npz"))
    for kind in ("real", "synthetic"):
        gallery[kind] = np.repeat(gallery[kind], 3, axis=2)
    np.savez(small_run / "gallery.npz", **gallery)
    assert page_of(small_run).tags.count("img") == 2 * 2 * 2 * 6


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run's folder: it has no config\.yaml"):
        write_report(tmp_path)


def test_a_run_whose_episodes_were_merged_has_the_figures_of_the_mean(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", num_classes=3, epochs=3)
    (folder / EPOCHS_FILE).unlink()
    for record in fake_records(3, epochs=3):
        merged = dataclasses.replace(record.incumbent, metrics={**record.incumbent.metrics, "f1": 0.25})
        append_epoch(
            folder,
            dataclasses.replace(
                record, winner=None, handover="merge", merged=merged, next_base_C=record.counts_C + 1
            ),
        )
    facts = read_run(folder)
    assert facts.winners("rewards") == [None] * 3
    assert [metrics["f1"] for metrics in facts.incumbents("metrics")] == [0.25] * 3
    assert facts.incumbents("composition")[-1] == (record.counts_C + 1).tolist()
    assert write_report(folder).stat().st_size > 10_000
