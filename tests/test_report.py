from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_run import BREAST_8, fake_records, metrics_json, write_run

from rlcas.errors import UserError
from rlcas.files import write_json
from rlcas.records import read_epochs
from rlcas.report import write_report

SECTIONS = ["images", "synthesis", "sampler", "policy", "test", "classes", "confusion", "settings"]
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """The page's texts by the section they stand in, its tags and its addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self._open.append((tag, attrs.get("id", "")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, f"<{tag}> is closed out of order"

    def handle_data(self, data):
        for _, name in self._open:
            if name:
                self.texts[name] = self.texts.get(name, "") + " " + " ".join(data.split())


def page_of(folder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run with spaces"), num_classes=8, epochs=5)
    return folder, page_of(folder)


def test_every_section_is_there_and_the_page_is_well_nested(finished):
    _, page = finished
    assert set(SECTIONS) | {"headline", "failures"} <= set(page.texts)
    assert page._open == []


def test_the_page_stands_alone(finished):
    _, page = finished
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_the_headline_and_the_table_show_the_test_figures(finished):
    folder, page = finished
    test = json.loads((folder / "metrics.json").read_text())["test"]
    for name in ("f1", "recall", "acc", "auc", "many", "few"):
        assert f"{test[name]:.3f}" in page.texts["headline"]
    assert "n/a Medium-shot recall" in page.texts["headline"].replace("  ", " ")
    assert "0.573 (0.541 to 0.605)" in page.texts["test"]
    assert f"{test['precision']:.3f}" in page.texts["test"]
    assert "0.590" in page.texts["test"], "the validation figure stands beside"


def test_class_names_are_text_and_never_markup(finished):
    _, page = finished
    assert "script" not in page.tags
    assert BREAST_8[6] in page.texts["classes"]
    assert "<b>tried to allocate 2 GiB</b>" in page.texts["failures"]


def test_the_recall_and_the_counts_of_each_class_are_shown(finished):
    folder, page = finished
    test = json.loads((folder / "metrics.json").read_text())["test"]
    counts = json.loads((folder / "data.json").read_text())["counts"]
    shown = page.texts["classes"].split()
    for c in range(8):
        assert f"{test['per_class_recall'][c]:.3f}" in shown
        assert str(counts["train"][c]) in shown
    assert "same picture with other labels" in page.texts["classes"]


def test_the_confusion_matrix_is_the_tables_numbers(finished):
    folder, page = finished
    confusion_CC = json.loads((folder / "metrics.json").read_text())["test"]["confusion"]
    numbers = [int(word) for word in page.texts["confusion"].split() if word.isdigit()]
    assert all(" ".join(map(str, row)) in " ".join(map(str, numbers)) for row in confusion_CC)


def test_the_quality_of_the_synthesis_is_shown(finished):
    _, page = finished
    for text in ("41.270", "0.031", "0.432", "resnet18", "0.412 (0.371 to 0.452; chance 0.125; 1124 images)"):
        assert text in page.texts["synthesis"]


def test_a_failed_episode_is_listed_with_its_traceback(finished):
    _, page = finished
    assert "Epoch 4, episode 2: out_of_memory" in page.texts["failures"]


def test_settings_seed_versions_and_times_are_shown(finished):
    _, page = finished
    for text in ("baseline_gamma", "2.60.0", "2 h 01 min", "rlcas run --config config.yaml"):
        assert text in page.texts["settings"]


def test_each_plot_is_a_file_too(finished):
    folder, _ = finished
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"rewards.png", "metrics.png", "class_00.png", "class_07.png"} <= names
    assert all((folder / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_agents_that_hardly_moved_are_said_not_to_have_learnt(finished):
    folder, page = finished
    p_TC3 = np.array([epoch["probabilities"] for epoch in read_epochs(folder)])
    assert f"moved at most {np.abs(p_TC3 - 1 / 3).max():.4f} from uniform" in page.texts["policy-sentence"]
    assert "keeping the best of 3 random compositions" in page.texts["policy-sentence"]


@pytest.mark.medium
def test_agents_that_moved_are_measured_against_a_frozen_policy(tmp_path):
    page = page_of(write_run(tmp_path, num_classes=2, epochs=5, drift=0.2))
    assert (
        "moved at most 0.2000 from uniform (1/3): p(less) = 0.5333 for fibroadenoma in epoch 5"
        in (page.texts["policy-sentence"])
    )
    assert "sampler.lr 0" in page.texts["policy-sentence"]


def test_an_interrupted_run_says_what_is_not_there_yet(tmp_path):
    write_run(tmp_path, num_classes=8, epochs=2)
    for name in ("metrics.json", "gallery.npz", "synthesis_log.jsonl"):
        (tmp_path / name).unlink()
    page = page_of(tmp_path)
    assert "the test figures (metrics.json)" in page.texts["missing"]
    assert "Not there yet: images." in page.texts["images"]
    assert "Not there yet: test figures." in page.texts["test"]
    assert "headline" not in page.texts


@pytest.mark.parametrize("kept", ["config.yaml", "data.json", "epochs.jsonl", "metrics.json", "gallery.npz"])
def test_a_run_that_holds_one_file_alone_has_a_page(kept, tmp_path):
    write_run(tmp_path, num_classes=3, epochs=1)
    for path in tmp_path.iterdir():
        if path.name != kept:
            path.unlink()
    assert set(SECTIONS) <= set(page_of(tmp_path).texts)


def test_a_pool_without_sketches_shows_its_images(tmp_path):
    write_run(tmp_path, num_classes=2, epochs=1)
    with np.load(tmp_path / "gallery.npz") as arrays:
        images = {name: arrays[name] for name in ("real", "synthetic")}
    np.savez(tmp_path / "gallery.npz", **images)
    page = page_of(tmp_path)
    assert page.tags.count("img") == 4
    assert "with sketches" not in page.texts["images"]


def test_figures_that_are_null_are_not_available(tmp_path):
    write_run(tmp_path, num_classes=2, epochs=1)
    metrics = metrics_json(2)
    metrics["synthesis"] |= {"fid": None, "pool_only": None}
    write_json(tmp_path / "metrics.json", metrics)
    assert "n/a" in page_of(tmp_path).texts["synthesis"]


@pytest.mark.medium
def test_a_hundred_classes_are_extremes_and_heat_maps(tmp_path):
    page = page_of(write_run(tmp_path, num_classes=100, epochs=3))
    assert {"composition.png", "policy.png", "confusion.png"} <= {
        p.name for p in (tmp_path / "figures").iterdir()
    }
    assert len(list((tmp_path / "figures").glob("class_*.png"))) == 6
    assert "finding 099" in page.texts["classes"]
    assert page.tags.count("img") == 12 * 4


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run's folder: it holds none of config\.yaml, data\.json"):
        write_report(tmp_path)


@pytest.mark.medium
def test_the_report_is_the_same_when_it_is_written_again(tmp_path):
    write_run(tmp_path, num_classes=2, epochs=2)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_the_made_records_fail_where_they_say():
    assert [report.status for report in fake_records(2, epochs=4)[3].reports] == ["ok", "ok", "out_of_memory"]
