"""What a comparison's folder shows: tables, sentences, CSV, JSON, figures and the page, from made predictions."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_comparison import FAILED, LEFT_OUT, ROWS, write_fake_comparison
from rich.console import Console

from rlcas.comparison.cell import PREDICTIONS_FILE, read_cell, write_cell
from rlcas.comparison.contrasts import CONTRASTS
from rlcas.comparison.findings import interval_text, sentences
from rlcas.comparison.folder import cell_folder, read_comparison
from rlcas.comparison.grids import table_1, table_2, table_contrasts, table_cost, table_differences
from rlcas.comparison.intervals import Interval, drawn_figures
from rlcas.comparison.summary import BASELINE, OURS, Results, summarise
from rlcas.comparison.table import markdown, summary_notes, summary_table
from rlcas.errors import UserError
from rlcas.methods import METHODS
from rlcas.metrics import macro_f1
from rlcas.reports.canvas import drawing
from rlcas.reports.comparison_figures import curves, f1_by_few, rare_axis, recall_of_classes
from rlcas.reports.comparison_page import bold, write_tables
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import write_json
from rlcas.types import Float64, Int64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_comparison(tmp_path_factory.mktemp("comparison"))


@pytest.fixture
def results(folder: Path) -> Results:
    return summarise(read_comparison(folder))


def one_class_found(share: float, labels_N: Int64) -> Float64:
    """Return predictions of two classes that find all of class 0 and `share` of class 1, the first ones."""
    found_N = labels_N.astype(np.float64)
    found_N[np.flatnonzero(labels_N == 1)[round(share * (labels_N == 1).sum()) :]] = 0
    return np.stack([1 - found_N, found_N], axis=1)


def write_shares(path: Path, shares: dict[str, list[float]]) -> Results:
    """Give every row of a two-class comparison the shares of class 1 that it finds under each seed."""
    write_fake_comparison(path, num_classes=2, seeds=3, rows=tuple(shares))
    for method, of_seeds in shares.items():
        for seed, share in enumerate(of_seeds):
            shutil.rmtree(cell_folder(path, method, seed, equal_compute=True), ignore_errors=True)
            folder = cell_folder(path, method, seed)
            cell = read_cell(folder)
            assert cell is not None
            labels_N = np.repeat([0, 1], [200, 100])
            p_NC = one_class_found(share, labels_N)
            test = {**cell.test, "f1": macro_f1(p_NC, labels_N), "per_class_recall": [1.0, share]}
            write_cell(folder, dataclasses.replace(cell, test=test), p_NC, labels_N)
    return summarise(read_comparison(path))


def test_a_row_that_is_surely_better_is_called_better_and_a_worse_one_worse(tmp_path: Path) -> None:
    close = [0.50, 0.51, 0.52]
    results = write_shares(
        tmp_path,
        {"baseline": close, "rlcas_k1": [0.2, 0.21, 0.22], OURS: [0.8, 0.81, 0.82], "ce": [0.79, 0.83, 0.81]},
    )
    first, *others = sentences(results)
    assert first.startswith("rlcas is better than the Baseline in macro F1 (+0.142")
    assert "Worse than rlcas: baseline, rlcas_k1." in others
    assert "Not distinguishable from rlcas: ce." in others
    highest = next(text for text in others if text.startswith("Highest mean F1: rlcas, "))
    assert "not distinguishable from the next" in highest
    assert results.best == {}, "rlcas and ce are too close"
    assert "**" not in "".join(map("".join, table_1(results).rows))


def test_ours_is_called_worse_where_it_is(tmp_path: Path) -> None:
    results = write_shares(tmp_path, {"baseline": [0.8, 0.81, 0.82], OURS: [0.5, 0.51, 0.52]})
    assert sentences(results)[0].startswith("rlcas is worse than the Baseline in macro F1 (−0.142")
    assert results.best["f1"] == "baseline"
    assert table_1(results).rows[0][5].startswith("**0.92")


def test_ours_against_the_same_predictions_is_not_distinguishable(tmp_path: Path) -> None:
    results = write_shares(tmp_path, {"baseline": [0.8, 0.7, 0.6], OURS: [0.8, 0.7, 0.6]})
    assert sentences(results)[0] == (
        "rlcas is not distinguishable from the Baseline in macro F1 (+0.000, 95 % interval +0.000 to +0.000, 3 seeds)."
    )


def test_rows_that_ended_as_the_same_classifier_are_named_with_the_number_of_seeds(tmp_path: Path) -> None:
    shares = {"baseline": [0.8, 0.7, 0.6], "rlcas_frozen": [0.5, 0.7, 0.6], OURS: [0.4, 0.7, 0.6]}
    write_shares(tmp_path, {**shares, "rlcas_k1": [0.1, 0.2, 0.3]})
    (cell_folder(tmp_path, "baseline", 1) / "cell.json").unlink()
    same = [sentence for sentence in sentences(summarise(read_comparison(tmp_path))) if "same" in sentence]
    assert [sentence.split(", to")[0] for sentence in same] == [
        "rlcas is the same classifier as baseline in 1 of 2 seeds",
        "rlcas is the same classifier as rlcas_frozen in 2 of 3 seeds",
    ]


def test_without_figures_of_ours_the_first_sentence_says_so(tmp_path: Path) -> None:
    write_shares(tmp_path, {"baseline": [0.8, 0.7, 0.6], OURS: [0.8, 0.7, 0.6]})
    shutil.rmtree(cell_folder(tmp_path, OURS, 0).parent)
    results = summarise(read_comparison(tmp_path))
    assert sentences(results)[0] == "rlcas cannot be compared with the Baseline: there are no figures of rlcas."


def test_a_comparison_that_does_not_ask_for_ours_is_against_the_baseline(tmp_path: Path) -> None:
    results = write_shares(
        tmp_path, {"baseline": [0.6, 0.6, 0.6], "ce": [0.2, 0.2, 0.2], "ncl": [0.9, 0.9, 0.9]}
    )
    assert sentences(results)[:2] == ["Better than baseline: ncl.", "Worse than baseline: ce."]
    assert not any(OURS in sentence for sentence in sentences(results))


def test_one_seed_has_no_deviation_and_an_interval_over_images_alone(tmp_path: Path) -> None:
    results = summarise(read_comparison(write_fake_comparison(tmp_path, seeds=1, rows=("baseline", OURS))))
    assert "1 seed, so of test images alone" in sentences(results)[0]
    assert "±" not in "".join(table_1(results).rows[0])


def test_the_summary_holds_means_and_deviations_of_the_cells(results: Results) -> None:
    row = results.row("ncl")
    assert row is not None
    cells = [cell for cell in results.comparison.cells if cell.method == "ncl" and not cell.equal_compute]
    for name in ("acc", "f1", "auc", "few", "ece"):
        values = [cell.test[name] for cell in cells]
        assert row.figures[name].mean == pytest.approx(np.mean(values))
        assert row.figures[name].std == pytest.approx(np.std(values, ddof=1))
    assert row.figures["f1"].low < row.figures["f1"].mean < row.figures["f1"].high
    assert row.passes_over_baseline == 3
    equal = [
        cell.test["f1"] for cell in results.comparison.cells if cell.method == "ncl" and cell.equal_compute
    ]
    assert row.equal_compute["f1"].mean == pytest.approx(np.mean(equal))


def test_rows_without_figures_say_why_and_take_no_rank(results: Results) -> None:
    of = {row.method: row for row in results.rows}
    assert all(of[name].status == "left_out" and math.isnan(of[name].rank) for name in LEFT_OUT)
    there = len(ROWS) - len(LEFT_OUT)
    assert sum(row.ranks[0] for row in results.rows if row.figures) == there * (there + 1) / 2
    text = markdown(results)
    assert "| lift | weights not given: --method.lift.pretrained takes them: a folder |" in text
    assert f"{FAILED} (2 of 3 seeds)" in text and "Left out: lift, skin_sdm." in text


def test_a_row_that_failed_under_every_seed_shows_its_reason(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", FAILED))
    failed = cell_folder(tmp_path, FAILED, 2) / "cell.json"
    for seed in (0, 1):
        (cell_folder(tmp_path, FAILED, seed) / "cell.json").write_text(failed.read_text())
    row = table_1(summarise(read_comparison(tmp_path))).rows[1]
    assert row[1].startswith("failed: the loss is not finite in epoch 3")


def test_cells_that_are_not_trained_yet_count_as_waiting(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", OURS))
    for seed in range(3):
        (cell_folder(tmp_path, OURS, seed) / "cell.json").unlink()
    results = summarise(read_comparison(tmp_path))
    assert table_1(results).rows[1][1] == "not trained yet"
    assert "Not trained yet: rlcas." in sentences(results)


def test_table_2_has_the_figures_of_each_rows_own_pool(results: Results) -> None:
    rows = {row[0]: row[1:5] for row in table_2(results).rows}
    assert table_2(results).head[4] == "AUC − repeats [95 %]"
    assert rows["syn_class"] == ("class", "71.2", "0.0712 [0.0593, 0.0791]", "–")
    assert rows["syn_sketch"][3] == "**+0.021 (+0.004 to +0.039)**"
    assert rows["mgdm"][3] == "−0.010 (−0.030 to +0.010)"
    assert rows["oversampling"] == ("real", "n/a", "n/a", "–")
    assert "baseline" not in rows and "skin_sdm" not in rows


def test_table_2_says_in_whose_features_its_distances_are(results: Results, tmp_path: Path) -> None:
    features = "Distances are in penultimate features of the Baseline's resnet18 of width 16."
    assert table_2(results).note.endswith(f" {features}")
    unjudged = summarise(read_comparison(write_fake_comparison(tmp_path, rows=("baseline", "oversampling"))))
    assert "Distances" not in table_2(unjudged).note


def test_the_notes_say_what_the_intervals_leave_out(results: Results) -> None:
    of_all, of_differences = table_1(results).note, table_differences(results).note
    assert "without a correction for the number of rows" in of_all
    assert "without a correction for the number of rows" in of_differences
    assert "not over splits, pools and the judge, which all seeds share" in of_differences


def test_the_equal_compute_columns_are_of_the_rows_that_need_more(results: Results) -> None:
    rows = {row[0]: row[6:] for row in table_differences(results).rows}
    assert rows["rlcas_k1"] == ("same", "same", "same")
    equal = results.row("ncl").equal_compute["f1"]
    assert rows["ncl"][0] == f"{equal.mean:.3f} ± {equal.std:.3f}"


def test_the_table_of_what_drives_the_result_has_the_pairs_of_which_both_rows_exist(tmp_path: Path) -> None:
    shares = {"rlcas_frozen": [0.5, 0.7, 0.6], "rlcas_k1": [0.1, 0.2, 0.3], OURS: [0.4, 0.7, 0.6]}
    results = write_shares(tmp_path, shares)
    by_rows = {row[1]: row for row in table_contrasts(results).rows}
    assert list(by_rows) == [f"{OURS} − rlcas_k1", f"{OURS} − rlcas_frozen"]
    part, _, difference, area, loss, same = by_rows[f"{OURS} − rlcas_frozen"]
    labels_N = np.repeat([0, 1], [200, 100])
    ours, frozen = (macro_f1(one_class_found(share, labels_N), labels_N) for share in (0.4, 0.5))
    assert part == "agents that learn" and same == "2"
    assert area.strip("*")[0] in "−+0" and loss.strip("*")[0] in "−+0"
    assert difference.startswith(f"−{(frozen - ours) / 3:.3f} (")
    assert by_rows[f"{OURS} − rlcas_k1"][2].startswith("**+"), "the interval leaves out 0"


def test_every_contrast_is_of_rows_that_exist() -> None:
    assert {name for pair in CONTRASTS for name in (pair.row, pair.other)} <= METHODS.keys()
    assert {OURS, BASELINE} <= METHODS.keys()


def test_missing_cells_of_equal_compute_are_named_with_their_number_and_reason(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", FAILED, "proco", "ncl"))
    failed = (cell_folder(tmp_path, FAILED, 2) / "cell.json").read_text()
    for method, seed in (("ncl", 0), ("ncl", 1), ("proco", 0), ("proco", 1), ("proco", 2)):
        (cell_folder(tmp_path, method, seed, equal_compute=True) / "cell.json").write_text(failed)
    (cell_folder(tmp_path, "proco", 0, equal_compute=True) / "cell.json").unlink()
    results = summarise(read_comparison(tmp_path))
    rows = {row[0]: row[6:] for row in table_differences(results).rows}
    assert rows["ncl"][0].endswith(" (1 of 3)") and rows["ncl"][2] != "–"
    assert rows["proco"] == ("failed", "–", "–")
    why = "failed: the loss is not finite in epoch 3: <b>lower</b> classifier.lr, which is 0.1"
    *_, short, equal = sentences(results)
    assert short == f"Not all seeds: {FAILED} (2 of 3; {why})."
    assert equal == (
        f"Not all seeds of equal compute: {FAILED} (2 of 3; {why}), proco (0 of 3; {why}), ncl (1 of 3; {why})."
    )
    assert not any("equal compute" in text for text in _summary_without_equal_compute(tmp_path))


def _summary_without_equal_compute(path: Path) -> list[str]:
    """Return the sentences of a comparison that was not asked for equal compute, and has none."""
    shutil.rmtree(path / "cells")
    write_fake_comparison(path, rows=("baseline", "ncl"))
    for seed in range(3):
        shutil.rmtree(cell_folder(path, "ncl", seed, equal_compute=True))
    settings_file = path / "compare.yaml"
    settings_file.write_text(settings_file.read_text().replace("equal_compute: true", "equal_compute: false"))
    return sentences(summarise(read_comparison(path)))


def test_cells_of_equal_compute_that_are_not_trained_yet_count_as_waiting(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", "ncl"))
    for seed in range(3):
        (cell_folder(tmp_path, "ncl", seed, equal_compute=True) / "cell.json").unlink()
    results = summarise(read_comparison(tmp_path))
    assert table_differences(results).rows[1][6:] == ("not trained yet", "–", "–")
    assert sentences(results)[-1] == "Not all seeds of equal compute: ncl (0 of 3; not trained yet)."


def test_at_equal_compute_alone_these_cells_are_the_rows_figures_and_are_marked(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", "ncl"))
    before = summarise(read_comparison(tmp_path)).row("ncl")
    file = tmp_path / "compare.yaml"
    file.write_text(file.read_text().replace("equal_compute: true", "equal_compute: only"))
    results = summarise(read_comparison(tmp_path))
    row = results.row("ncl")
    assert row.figures == before.equal_compute and row.figures != before.figures
    assert row.against_baseline["f1"] == before.equal_against_baseline
    assert not row.equal_compute and not row.needs_equal and len(row.ranks) == 3
    assert [of[0] for of in table_1(results).rows] == ["baseline", "ncl at equal compute"]
    assert {cell.equal_compute for cell in results.comparison.cells if cell.method == "ncl"} == {True}
    assert "Trained only at equal compute, with as many classifier passes as the Baseline: ncl." in sentences(
        results
    )


def test_the_first_sentence_says_that_ours_was_trained_at_equal_compute_alone(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", OURS))
    file = tmp_path / "compare.yaml"
    file.write_text(file.read_text().replace("equal_compute: true", "equal_compute: only"))
    first, *others = sentences(summarise(read_comparison(tmp_path)))
    assert first.startswith(f"{OURS} at equal compute is ") and " the Baseline in macro F1 (" in first
    assert not any(sentence.startswith("With as many classifier passes") for sentence in others)
    shutil.rmtree(tmp_path / "cells" / OURS)
    first, *_ = sentences(summarise(read_comparison(tmp_path)))
    assert first.startswith(f"{OURS} at equal compute cannot be compared with the Baseline: ")


def test_equal_compute_of_ours_is_of_classifier_passes_and_says_so(results: Results) -> None:
    sentence = sentences(results)[1]
    assert sentence.startswith(
        "With as many classifier passes as the Baseline (1.00 ×; the synthesiser's training is not counted), rlcas is "
    )


@pytest.mark.parametrize(("passes", "expected"), [(1.09, "same"), (1.11, "–")])
def test_compute_is_the_same_only_within_a_tenth_of_the_baselines_passes(
    tmp_path: Path, passes: float, expected: str
) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", "ce"))
    for seed in range(3):
        path = cell_folder(tmp_path, "ce", seed) / "cell.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "passes": round(passes * facts["passes"])}))
    rows = table_differences(summarise(read_comparison(tmp_path))).rows
    assert rows[1][6:] == (expected,) * 3


def test_the_compute_table_has_images_over_the_budget_and_what_the_pool_took(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", "syn_sketch", "syn_class", "oversampling"))
    write_json(RunFolder(tmp_path / "pools/sketch").timings, {"synthesiser": 200.4, "pool": 5.2, "judge": 9.1})
    write_json(RunFolder(tmp_path / "pools/class").timings, {"pool": 0.1, "judge": 9.1})
    for seed in range(3):
        path = cell_folder(tmp_path, "syn_sketch", seed) / "cell.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "images": round(1.06 * facts["images"])}))
    table = table_cost(summarise(read_comparison(tmp_path)))
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert [rows[name]["× budget"] for name in ("baseline", "syn_sketch")] == ["1.00", "1.06"]
    made_in = [rows[name]["pool made in"] for name in ("baseline", "syn_sketch", "syn_class", "oversampling")]
    assert made_in == ["–", "3 min 26 s", "given", "–"]


def test_an_interval_is_written_with_signs() -> None:
    assert (
        interval_text(Interval(value=0.0119, low=-0.02, high=0.0412, num_seeds=3))
        == "+0.012 (−0.020 to +0.041)"
    )


def test_an_empty_group_of_classes_is_not_available(tmp_path: Path) -> None:
    results = summarise(
        read_comparison(write_fake_comparison(tmp_path, num_classes=2, rows=("baseline", "ce")))
    )
    assert [row[4] for row in table_1(results).rows] == ["n/a", "n/a"]
    assert rare_axis(results.comparison) == (
        "rarest",
        "recall of the smallest class, cyst, simple or compl… (no class is few-shot)",
    )


def test_the_folder_gets_tables_figures_and_page(folder: Path) -> None:
    results = write_tables(folder)
    facts = json.loads((folder / "compare.json").read_text())
    assert len(facts["cells"]) == len(list(results.comparison.cells))
    assert facts["cells"][0]["test"]["confusion"] and facts["cells"][0]["curve"][0]["images"]
    summary = next(row for row in facts["rows"] if row["method"] == OURS)
    assert set(summary["against_baseline"]["f1"]) == {"value", "low", "high", "num_seeds"}
    lines = list(csv.DictReader((folder / "compare.csv").read_text().splitlines()))
    assert float(lines[0]["f1"]) == facts["cells"][0]["test"]["f1"]
    assert [line["status"] for line in lines if line["method"] == "lift"] == ["left_out"] * 3
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3 and "<script" not in page and "<link" not in page
    assert "&lt;b&gt;lower&lt;/b&gt;" in page and "<b>lower</b>" not in page
    assert sentences(results)[0] in page.replace("&#39;", "'")
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "f1_by_few.png",
        "recall_of_classes.png",
        "curves.png",
    }


def test_tables_and_figures_are_in_boxes_that_scroll_on_narrow_screens(folder: Path) -> None:
    write_tables(folder)
    page = (folder / "report.html").read_text()
    wide = re.findall(r"<(?:table|svg)\b", page)
    boxed = re.findall(r'<div class="scroll">\s*(?:<\?xml.*?>\s*|<!.*?>\s*)*<(?:table|svg)\b', page)
    assert len(wide) == len(boxed) > 20


def test_the_page_of_a_comparison_without_cells_yet_is_whole(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, rows=("baseline", OURS))
    for path in (tmp_path / "cells").rglob("cell.json"):
        path.unlink()
    write_tables(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Not trained yet: baseline, rlcas." in page and "<svg" not in page


def test_names_in_the_dots_figure_do_not_cover_each_other(results: Results) -> None:
    with drawing():
        figure = f1_by_few(results)
        figure.draw_without_rendering()
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == [row.method for row in results.rows if row.figures]
    boxes = [text.get_window_extent() for text in texts]
    overlapping = [
        (a.get_text(), b.get_text())
        for i, (a, box) in enumerate(zip(texts, boxes, strict=True))
        for b, other in zip(texts[i + 1 :], boxes[i + 1 :], strict=True)
        if box.shrunk(1, 0.7).overlaps(other.shrunk(1, 0.7))
    ]
    assert not overlapping
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_the_heat_map_goes_from_the_largest_class_to_the_smallest(results: Results) -> None:
    with drawing():
        axes = recall_of_classes(results).axes[0]
    counts = [int(label.get_text().split()[-1].strip("()")) for label in axes.get_xticklabels()]
    assert counts == sorted(counts, reverse=True)
    assert list(axes.images[0].get_array()[0]) == pytest.approx(results.row("baseline").per_class_recall)


def test_curves_have_a_line_a_seed_their_mean_and_the_budget(results: Results) -> None:
    with drawing():
        figure = curves(results)
    baseline = figure.axes[0]
    *seeds, mean, budget = baseline.lines
    assert len(seeds) == 3
    assert list(mean.get_ydata()) == pytest.approx(np.mean([line.get_ydata() for line in seeds], axis=0))
    assert set(budget.get_xdata()) == {seeds[0].get_xdata()[-1]}


def test_the_console_shows_a_row_a_method_and_why_some_have_none(results: Results) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary_table(results))
    text = console.export_text()
    assert len(text.splitlines()) == 1 + len(ROWS)
    assert "*" not in text
    assert summary_notes(results)[0].startswith("lift: weights not given: ")


def test_bold_parts_are_bold_and_the_rest_is_escaped() -> None:
    assert bold("**0.7** & <b>") == "<b>0.7</b> &amp; &lt;b&gt;"


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is not a comparison's folder: it has no compare\.yaml, or no prepared"
    ):
        read_comparison(tmp_path)


def test_cells_that_were_tested_on_other_images_are_refused(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, num_classes=2, rows=("baseline", "ce"))
    folder = cell_folder(tmp_path, "ce", 0)
    with np.load(folder / PREDICTIONS_FILE) as file:
        arrays = dict(file)
    np.savez(folder / PREDICTIONS_FILE, **{**arrays, "labels": 1 - arrays["labels"]})
    with pytest.raises(
        UserError, match=r"ce/0 was tested on other images than .*baseline/0: delete it, then resume"
    ):
        read_comparison(tmp_path)


def test_a_class_without_test_images_is_named_and_counts_in_no_row(tmp_path: Path) -> None:
    folder = write_fake_comparison(tmp_path, num_classes=3, seeds=2, rows=("baseline", "ce"), absent=(2,))
    results = write_tables(folder)
    name = results.comparison.class_names[2]
    row = results.row("baseline")
    assert row is not None and math.isnan(row.per_class_recall[2])
    assert row.figures["recall"].mean == pytest.approx(np.mean(row.per_class_recall[:2]))
    for seed in range(2):
        # What is drawn again for the intervals has the definition of the figures.
        cell = read_cell(cell_folder(folder, "baseline", seed))
        assert cell is not None and cell.test["absent_classes"] == [name]
        for figure in ("f1", "recall", "precision"):
            drawn = drawn_figures(
                results.comparison.probabilities["baseline", seed, False],
                results.comparison.labels_N,
                np.ones((1, len(results.comparison.labels_N)), np.float32),
                results.comparison.groups,
            )
            assert drawn[figure][0] == pytest.approx(cell.test[figure])
    note = f"o test image is of class {name!r}: macro figures are over the other classes"
    assert f"N{note}" in (folder / "compare.md").read_text()
    assert f"N{html.escape(note).replace('&#x27;', '&#39;')}" in (folder / "report.html").read_text()
    assert summary_notes(results)[0].startswith(f"note: n{note}")
    assert json.loads((folder / "compare.json").read_text())["absent_classes"] == [name]
    assert results.comparison.shots.few == (2,) and rare_axis(results.comparison)[0] == "rarest"
    with drawing():
        numbers = {text.get_text() for text in recall_of_classes(results).axes[0].texts}
    assert "n/a" in numbers and "nan" not in numbers


def test_the_rarest_class_is_the_rarest_of_those_that_are_tested(tmp_path: Path) -> None:
    write_fake_comparison(tmp_path, num_classes=2, seeds=1, rows=("baseline",))
    whole = read_comparison(tmp_path)
    rarest = int(whole.train_counts_C.argmin())
    assert whole.groups["rarest"] == (rarest,) and whole.absent_classes == []
    write_fake_comparison(tmp_path, num_classes=2, seeds=1, rows=("baseline",), absent=(rarest,))
    assert read_comparison(tmp_path).groups["rarest"] == (1 - rarest,)
