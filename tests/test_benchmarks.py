"""Benchmarks as commands, with as little work as possible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzed_readers import READERS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.medium


def figures_of(script: str, *options: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, BENCHMARKS / script, "--json", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_every_case_of_the_classifier_epoch_has_both_figures() -> None:
    results = figures_of("classifier_epoch.py", "--repeats", "1")
    assert set(results) == {"breast_28", "breast_28_synthetic"}
    for figures in results.values():
        assert set(figures) == {"share_of_floor", "ratio_to_dataloader"}
        assert all(figure > 0 for figure in figures.values())


def test_atheris_is_guided_through_a_reader() -> None:
    pytest.importorskip("atheris")
    results = figures_of("fuzz.py", "--engine", "atheris", "--readers", "csv", "--inputs", "300")
    assert results["csv"]["inputs"] == 300 and results["csv"]["refused"] > 100


@pytest.mark.slow
def test_a_hundred_thousand_broken_files_are_read_or_refused_in_one_line() -> None:
    pytest.importorskip("atheris")
    results = figures_of("fuzz.py", "--engine", "atheris", "--inputs", "100000")
    assert results.pop("all")["inputs"] >= 100_000
    assert set(results) == set(READERS)
    assert all(figures["refused"] > figures["inputs"] / 2 for figures in results.values())


def test_planted_copies_are_found_and_real_test_images_are_not_taken_for_copies() -> None:
    results = figures_of("copies.py", "--epochs", "1", "--images", "1000")
    assert set(results) == {"phantom_classifier", "phantom_pixels"}
    for figures in results.values():
        assert figures["exact"] == figures["mirrored"] == 1.0
        assert figures["real_test"] < 0.03


def test_sketches_are_compared_in_cost_and_in_finding_an_outline() -> None:
    results = figures_of("sketches.py", "--sides", "32", "--images", "4", "--repeats", "1")
    assert set(results) == {"ratio_of_averages_32px", "scharr_32px"}
    assert results["ratio_of_averages_32px"]["cost_ratio"] == 1
    for looks in (2, 4, 12):
        found = {name: figures[f"outline_ap_{looks}"] for name, figures in results.items()}
        assert 0 < found["scharr_32px"] < found["ratio_of_averages_32px"] <= 1


def test_the_phantoms_difficulty_is_measured_on_test_images() -> None:
    committed = json.loads((BENCHMARKS.parent / "docs" / "phantom_difficulty.json").read_text(encoding="utf-8"))
    results = figures_of("phantom_difficulty.py", "--seeds", "0", "--epochs", "1", "--images", "700")
    assert set(results) == {"balanced_seed_0", "long_tailed_seed_0"} <= set(committed)
    for case, figures in results.items():
        assert figures.keys() == committed[case].keys()
        assert all(0 <= figure <= 1 for figure in figures.values())


def test_no_dose_of_noise_images_is_found_on_phantoms() -> None:
    options = ("--data", "phantom", "--images", "500", "--seeds", "0", "--epochs", "2", "--search-epochs", "3")
    results = figures_of("feature_doses.py", *options)
    assert set(results) == {"noise_seed_0", "repeats_seed_0", "noise", "repeats"}
    assert [results["noise_seed_0"][f"a_update_count_{c}"] for c in range(8)] == [0] * 8
    assert results["noise"]["a_update_auc"] == results["noise"]["a_update_log_likelihood"] == 0
    for figures in results.values():
        assert figures["oracle_log_likelihood"] >= 0


def test_agents_that_learn_beat_chance_on_planted_responses() -> None:
    """Two runs a cell; the benchmark itself takes 200 and asks for 2 points at the middle noise."""
    results = figures_of("agents.py", "--runs", "2")
    assert set(results) == {"low_noise", "middle_noise", "high_noise", "middle_noise_drift"}
    for figures in results.values():
        for name in ("state", "response"):
            bounds = [figures[f"{name}_minus_frozen{bound}"] for bound in ("_low", "", "_high")]
            assert bounds == sorted(bounds)
            assert figures[f"{name}_minus_frozen"] == pytest.approx(figures[name] - figures["frozen"])
            assert 82.4 < figures[name] <= 90.0
    middle = results["middle_noise"]
    assert middle["response"] > middle["state"] > middle["frozen"] > middle["paper_lr_0.3"]
    assert results["middle_noise_drift"]["response_trendless"] < results["middle_noise_drift"]["response"] - 0.5


def test_1000_classes_fit_into_the_drivers_memory() -> None:
    figures = figures_of("scale.py")["classes_1000"]
    assert 0.1 < figures["driver_gib"] < 1.5
    assert figures["seconds"] > 0


def test_hand_over_and_checkpoints_are_measured_against_copies_and_epochs_without() -> None:
    (figures,) = figures_of("handover.py", "--repeats", "1").values()
    assert figures["megabytes"] > 130
    assert figures["ratio_to_copies"] == pytest.approx(figures["hand_over_ms"] / figures["copies_ms"])
    results = figures_of("checkpoints.py", "--repeats", "1")
    assert set(results) == {"classes_8", "classes_1000"}
    assert all(figures["checkpoint_ms"] > 0 < figures["epoch_ratio"] for figures in results.values())


def test_the_intervals_of_a_comparison_cover_the_truth_where_drawing_seeds_again_does_not() -> None:
    results = figures_of("intervals.py", "--simulations", "60")
    assert len(results) == 12
    for figures in results.values():
        assert figures["interval"] >= 0.85
    wide = results["seeds_3_images_1124_spread_0.4"]
    assert wide["images_alone"] < wide["seeds_drawn"] < wide["interval"]


def test_readers_are_fuzzed_and_the_inputs_counted() -> None:
    results = figures_of("fuzz.py", "--inputs", "40", "--readers", "csv", "npz", "--seed", "3")
    assert list(results) == ["csv", "npz", "all"]
    assert results["all"]["inputs"] == 40 and 0 < results["all"]["refused"] <= 40


def test_an_epoch_on_a_cluster_is_printed_part_by_part_and_follows_the_assumptions() -> None:
    usual, fast = figures_of("scaling.py"), figures_of("scaling.py", "--images-per-second", "4000")
    assert {"target", "target_dosed", "hours_k64", "efficiency_k64"} <= set(usual)
    for case in ("target", "classes_8_k3"):
        assert fast[case]["train_seconds"] == pytest.approx(usual[case]["train_seconds"] / 2)
        assert fast[case]["network_gb"] == usual[case]["network_gb"]


def test_unit_costs_of_a_cluster_are_measured_and_the_real_engine_is_compared_with_them(tmp_path: Path) -> None:
    results = figures_of("scaling_costs.py", "--repeats", "1", "--k", "1", "2", "--classes", "8")
    assert set(results) == {"costs", "k1_classes_8", "k2_classes_8"}
    assert all(cost >= 0 for cost in results["costs"].values())
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps(results))
    options = ("--k", "2", "--classes", "8", "--epochs", "1", "--costs", str(costs))
    figures = figures_of("scaling_run.py", *options)["k2"]
    assert figures["workers"] == 2 and figures["left_behind"] == 0
    assert figures["ratio_to_model"] == pytest.approx(figures["epoch_seconds"] / figures["model_seconds"])


def test_an_epoch_of_shares_is_compared_with_a_plain_one_of_the_same_images() -> None:
    results = figures_of("rlcas_cost.py", "--repeats", "2")
    assert set(results) == {"share", "share_on_an_actor", "whole"}
    assert all({"wall_ratio", "epoch_seconds"} <= set(figures) for figures in results.values())
    assert results["share"]["cpu_ratio"] < 2 < results["whole"]["cpu_ratio"], "a pass, and three"
