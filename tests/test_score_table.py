from __future__ import annotations

import numpy as np
import pytest
from fake_run import BREAST_8, metrics_json

from rlcas.console import show_table
from rlcas.reports.score_table import COLUMNS, score_notes, score_table

FIGURES = metrics_json(8)["synthesis"]


def test_the_table_has_a_line_for_the_pool_and_one_a_class_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(score_table(FIGURES))
    title, header, whole, *of_classes = capsys.readouterr().out.splitlines()
    assert title.strip() == "2400 synthetic against 3935 real training images, in resnet18 (D = 512)"
    assert [header.index(name) for name in COLUMNS] == sorted(header.index(name) for name in COLUMNS)
    rest = "0.0312 [0.0271, 0.0353] 0.710 0.420 1.130 0.630 0.93 88.2 0.004 36"
    assert whole.split() == ["all", "3935", "2400", "41.3", *rest.split(), "0.412"]
    assert [line.split("  ")[0] for line in of_classes] == list(BREAST_8)
    assert of_classes[0].split()[1:] == ["1679", "300", "n/a", *rest.split(), "0.800"]


def test_the_notes_say_what_copies_are_held_against_and_why_a_figure_is_missing() -> None:
    copies, ratio, fid, filtered, alone = score_notes(FIGURES)
    assert copies == (
        "copy rate: 0.004 of the pool as it is used, 0.019 with the marked copies, 0.014 of 562 held-out real images "
        "by the same rules"
    )
    assert ratio.startswith("distance ratio: how far the median image is from its nearest training image")
    assert filtered.startswith("synth.filter leaves out images of the pool: ")
    assert fid == "FID of a class: n/a up to 512 images, real or synthetic"
    assert "macro recall 0.412 on 1124 real test images (95 % interval 0.371 to 0.452, chance 0.125)" in alone


def test_what_was_not_measured_has_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    per_class = [{**scores, "fid": 1.0} for scores in FIGURES["per_class"]]
    figures = {**FIGURES, "pool_only": None, "per_class": per_class, "kid": np.nan}
    assert len(score_notes({**figures, "filter": None})) == 2
    show_table(score_table(figures))
    assert "n/a [0.0271" in capsys.readouterr().out
