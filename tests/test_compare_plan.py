"""The plan of a comparison: rows, budgets, cells and pools, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_data
from tiny_clip import write_tiny_clip

from cluster.comparison.cell_plan import PlannedCell, cells_of
from cluster.comparison.plan import ComparisonPlan, plan, plan_of
from cluster.comparison.tuning import found, points_of, tries_of, tuned_cells
from rlcas import settings
from rlcas.comparison.cell import Cell, write_facts
from rlcas.errors import UserError
from rlcas.methods import METHODS

DATA = tiny_data(40)
"""14, 13 and 13 images of three classes: with batches of 16, three steps an epoch."""


def planned(tmp_path: Path, methods: str = "all", **stated: Any) -> ComparisonPlan:
    compare = {
        "methods": methods.split(",") if methods else [],
        "seeds": 2,
        "epochs": 30,
        **stated.pop("compare", {}),
    }
    classifier = {"width": 8, "batch_size": 16, **stated.pop("classifier", {})}
    sections = {"data": "phantom", "out": str(tmp_path / "out"), "compare": compare, "classifier": classifier}
    return plan(sections | stated)


def cells_by_row(made: ComparisonPlan) -> dict[str, list[PlannedCell]]:
    rows: dict[str, list[PlannedCell]] = {}
    for cell in cells_of(made, DATA):
        rows.setdefault(cell.method, []).append(cell)
    return rows


def test_every_method_is_a_row_and_weights_that_are_not_given_leave_one_out(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert [row.name for row in made.rows] == list(METHODS)
    missing = {row.name: row.missing for row in made.rows if row.missing}
    assert set(missing) == {"lift", "skin_sdm"}
    assert missing["lift"].startswith("weights not given: --method.lift.pretrained takes them: ")
    assert all("\n" not in reason for reason in missing.values())
    assert list(made.pools) == ["sketch", "image", "class", "mgdm"]
    assert list(tmp_path.iterdir()) == []


def test_rows_see_the_same_images_in_fewer_epochs_where_images_are_added(tmp_path: Path) -> None:
    rows = cells_by_row(planned(tmp_path))
    assert {cell.config.sampler.epochs for cell in rows["baseline"]} == {30}
    static = rows["syn_sketch"][0]
    assert sum(static.counts_C) == 13 and len(static.counts_C) == 3, "40 images in 3 batches: 13 for each"
    assert static.config.sampler.epochs == 15 and static.passes == 15 * (40 + 3 * 13)
    episodes = rows["rlcas"][0]
    assert episodes.counts_C == (2, 2, 2)
    assert episodes.config.sampler.epochs == 17, "its counts are expected to be 2, 2.2, 2.4, … a class"
    constant = rows["constant"][0]
    assert constant.config.sampler.epochs == 21, "30 * 40 / (40 + 3 * 6) = 20.7"
    assert constant.passes == 3 * 21 * 58
    assert 17 < rows["pbt"][0].config.sampler.epochs <= 21, "a third of its members move, after the first epoch"


@pytest.mark.parametrize("k", [2, 3, 7])
def test_at_equal_compute_no_row_is_planned_with_more_passes_than_the_baseline(tmp_path: Path, k: int) -> None:
    rows = cells_by_row(planned(tmp_path, sampler={"k": k}))
    for cells in rows.values():
        equal = [cell for cell in cells if cell.equal_compute]
        assert all(cell.passes <= rows["baseline"][0].passes for cell in equal)
    assert rows["constant"][1].config.sampler.epochs == 30 * 40 // (58 * k)


def test_what_needs_more_passes_is_trained_once_more_with_as_many_as_the_baseline(tmp_path: Path) -> None:
    rows = cells_by_row(planned(tmp_path))
    assert [cell.name for cell in rows["baseline"]] == ["cells/baseline/0", "cells/baseline/1"]
    names = ["cells/ncl/0", "cells/ncl/0-equal", "cells/ncl/1", "cells/ncl/1-equal"]
    assert [cell.name for cell in rows["ncl"]] == names
    full, equal, *_ = rows["ncl"]
    assert (full.config.sampler.epochs, equal.config.sampler.epochs) == (30, 10)
    assert full.passes == 3 * equal.passes
    without = cells_by_row(planned(tmp_path, compare={"equal_compute": False}))
    assert not any(cell.equal_compute for cells in without.values() for cell in cells)


def test_rows_that_need_more_passes_may_be_trained_at_equal_compute_alone(tmp_path: Path) -> None:
    made = planned(tmp_path, "baseline,ncl,syn_sketch", compare={"equal_compute": "only", "tune": 2})
    rows = cells_by_row(made)
    assert [cell.name for cell in rows["ncl"]] == ["cells/ncl/0-equal", "cells/ncl/1-equal"]
    assert not any(cell.equal_compute for cell in [*rows["baseline"], *rows["syn_sketch"]])
    both = cells_by_row(planned(tmp_path, "baseline,ncl,syn_sketch"))
    assert rows["ncl"][0].config.sampler.epochs == both["ncl"][1].config.sampler.epochs == 10
    tried = [cell for cell in tries_of(made, DATA) if cell.method == "ncl"]
    assert [(cell.name, cell.config.sampler.epochs) for cell in tried] == [
        ("cells/ncl/tried/1", 10),
        ("cells/ncl/tried/2", 10),
    ]


def test_a_row_that_replays_another_has_the_cells_of_its_next_seed_and_its_budget(tmp_path: Path) -> None:
    made = planned(tmp_path, "rlcas_dose,rlcas_dose_replayed", seed=7, compare={"seeds": 3, "tune": 2})
    rows = cells_by_row(made)
    assert [(cell.seed, cell.replays) for cell in rows["rlcas_dose_replayed"]] == [
        (7, "cells/rlcas_dose/8"),
        (8, "cells/rlcas_dose/9"),
        (9, "cells/rlcas_dose/7"),
    ]
    assert not any(cell.replays for cell in rows["rlcas_dose"])
    for cell, dose in zip(*rows.values(), strict=True):
        assert cell.config.sampler == dose.config.sampler and cell.passes == dose.passes
    assert {cell.method for cell in tries_of(made, DATA)} == {"rlcas_dose"}, "it has the settings of that row"


def test_a_row_that_replays_another_is_trained_with_the_settings_that_were_found_for_that_one(
    tmp_path: Path,
) -> None:
    made = planned(tmp_path, "rlcas_dose,rlcas_dose_replayed", compare={"tune": 3})
    tries = tries_of(made, DATA)
    for number, cell in enumerate(tries):
        figures = {"f1": (0.5, 0.7, 0.6)[number], "val_loss": 1.0}
        ended = Cell(dataset="phantom", method=cell.method, seed=cell.seed, validation=figures)
        write_facts(tmp_path / cell.name, ended)
    dose, replayed = found(tmp_path, made, tries)
    best = tries[1].own["sampler.exploration"], tries[1].config.classifier.lr
    for of_row in (dose, replayed):
        assert (of_row.settings["sampler.exploration"], of_row.row.config.classifier.lr) == best
    assert replayed.tried == dose.tried and len(dose.tried) == 3
    first, second = (tuned_cells(of_row, DATA)[0] for of_row in (dose, replayed))
    assert first.config.sampler == second.config.sampler
    assert (second.method, second.replays) == ("rlcas_dose_replayed", "cells/rlcas_dose/1")


def test_a_row_that_replays_another_is_left_out_where_there_is_one_seed(tmp_path: Path) -> None:
    made = planned(tmp_path, "rlcas_dose,rlcas_dose_replayed", compare={"seeds": 1})
    assert [row.missing for row in made.rows] == [
        "",
        "compare.seeds is 1, but it replays rlcas_dose under another seed: set compare.seeds to 2 or more",
    ]


def test_replaced_images_cost_no_epochs(tmp_path: Path) -> None:
    sampler = {"batch_mode": "fixed_total", "max_count": 4}
    rows = cells_by_row(planned(tmp_path, "rlcas,syn_sketch", sampler=sampler))
    assert [cells[0].config.sampler.epochs for cells in rows.values()] == [30, 30]


def test_cells_share_all_but_seed_epochs_and_the_rows_own(tmp_path: Path) -> None:
    made = planned(tmp_path, "baseline,ce,rlcas_frozen", seed=7)
    first, second, ce, *_, frozen = [cell.config for cell in cells_of(made, DATA) if not cell.equal_compute]
    assert (first.seed, second.seed) == (7, 8)
    assert first.model_copy(update={"seed": 8}) == second
    assert first.dataset.seed == 7, "all seeds train on the same images"
    changed = {"method": "ce", "loss": "ce"}
    assert first.model_copy(update={"classifier": first.classifier.model_copy(update=changed)}) == ce
    assert (frozen.sampler.agents, first.sampler.agents) == ("uniform", "paper")
    assert frozen.cluster.episode_runner == "in_process" and frozen.cluster.threads_per_episode == 1


def test_a_resolved_plan_is_the_plan_again(tmp_path: Path) -> None:
    made = planned(tmp_path, sampler={"agents": "response"}, preset="quick")
    again = plan_of(settings.of_comparison(made.config.model_dump(mode="json")))
    assert again == made
    assert cells_of(again, DATA) == cells_of(made, DATA)


def test_the_given_pool_is_the_sketch_pool_and_is_not_made(tmp_path: Path) -> None:
    made = planned(tmp_path, "rlcas,skin_sdm", pool="mine", compare={"pools": {"skin_sdm": "folder:own"}})
    assert made.pools["sketch"].pool == str(Path("mine").absolute())
    assert made.pools["skin_sdm"].pool == f"folder:{Path('own').absolute()}"
    assert not any(row.missing for row in made.rows), "a pool that is there needs no weights"
    assert made.config.pool is None


def test_pools_differ_in_what_their_rows_compare(tmp_path: Path) -> None:
    pools = planned(tmp_path).pools
    assert pools["sketch"].synth.denoiser.sketch_weight == 0.1
    assert [pools[name].synth.denoiser.sketch_weight for name in ("class", "mgdm")] == [0, 0]
    assert [pools[name].synth.generator for name in pools] == ["ldm", "ldm", "ldm", "mgdm"]
    starts = [(of.start, of.strength, of.sources) for of in (pools[name].synth.generation for name in pools)]
    noise = ("noise", None, None)
    assert starts == [noise, ("image", 0.3, "own"), noise, noise]
    assert pools["class"].out == tmp_path / "out/pools/class"


def test_the_strength_and_sources_of_images_from_real_ones_are_the_users_where_stated(tmp_path: Path) -> None:
    stated = {"start": "image", "strength": 0.6, "sources": "confused"}
    pools = planned(tmp_path, "syn_sketch,syn_image", synth={"generation": stated}).pools
    for name in ("sketch", "image"):
        generation = pools[name].synth.generation
        assert (generation.start, generation.strength, generation.sources) == ("image", 0.6, "confused")
    few = planned(tmp_path, "syn_image", synth={"generation": {"steps": 2}}).pools["image"].synth
    assert few.generation.strength == 0.5


def test_a_row_from_outside_has_a_folder_that_every_disk_takes(tmp_path: Path) -> None:
    made = planned(tmp_path, "rlcas.methods.paper_rows:CE")
    assert cells_of(made, DATA)[0].name == "cells/rlcas.methods.paper_rows-CE/0"
    assert made.rows[0].config.classifier.loss == "ce"


def test_each_row_is_tried_with_as_many_settings_its_own_first(tmp_path: Path) -> None:
    made = planned(tmp_path, "baseline,syn_sketch,lift", compare={"tune": 4})
    tries = tries_of(made, DATA)
    assert [cell.name for cell in tries[:4]] == [f"cells/baseline/tried/{number}" for number in (1, 2, 3, 4)]
    assert len(tries) == 8, "what is left out is not tried"
    own, *drawn = points_of(made.rows[1])
    assert own == {"classifier.lr": 1e-3, "compare.synthetic_ratio": 1.0}
    assert all(2.5e-4 <= point["classifier.lr"] <= 4e-3 for point in drawn)
    assert {cell.seed for cell in tries} == {0}
    assert [cell.config.classifier.lr for cell in tries[4:]] == [
        point["classifier.lr"] for point in [own, *drawn]
    ]
    assert points_of(planned(tmp_path, "baseline").rows[0]) == []


def test_all_rows_try_the_same_factors_of_their_own_learning_rate(tmp_path: Path) -> None:
    clip = {"lift": {"pretrained": str(write_tiny_clip(tmp_path / "clip"))}}
    made = planned(tmp_path, "baseline,proco,rlcas,lift", compare={"tune": 5}, method=clip)
    factors = [
        [point["classifier.lr"] / points[0]["classifier.lr"] for point in points]
        for points in map(points_of, made.rows)
    ]
    for of_row in factors[1:]:
        np.testing.assert_allclose(of_row, factors[0], rtol=1e-3)
    assert len(set(factors[0])) == 5


def test_the_learning_rate_of_agents_is_tried_where_a_gradient_teaches_them(tmp_path: Path) -> None:
    def searched(agents: str) -> set[str]:
        made = planned(tmp_path, sampler={"agents": agents}, compare={"tune": 2})
        return {row.name for row in made.rows if not row.missing and "sampler.lr" in points_of(row)[0]}

    taught = {"rlcas", "syn_class_rlcas", "rlcas_k1", "rlcas_state"}
    assert searched("paper") == taught
    assert searched("response") == {"rlcas_state"}


def test_agents_of_a_row_have_their_own_settings_after_a_resume_too(tmp_path: Path) -> None:
    made = planned(tmp_path, "rlcas,rlcas_state,rlcas_response")
    again = plan_of(settings.of_comparison(made.config.model_dump(mode="json")))
    for of_plan in (made, again):
        assert [row.config.sampler.lr for row in of_plan.rows] == [1e-3, 0.15, 1e-3]
        assert [row.config.sampler.reward for row in of_plan.rows] == ["cubic", "per_class", "cubic"]


def test_nothing_is_tried_that_has_no_effect_on_its_row() -> None:
    assert not METHODS["logit_adjust"].search, (
        "mode posthoc reads no tau, and chooses its own after every epoch"
    )
    assert "sampler.action_step" not in METHODS["constant"].search, "nobody acts"
    assert "method.ncl.hcm_share" not in METHODS["ncl"].search, (
        "0.3 and 0.5 of 5 classes or fewer are 2 hard ones"
    )


@pytest.mark.parametrize(
    ("methods", "stated", "message"),
    [
        ("nope", {}, r"^compare\.methods 'nope' is unknown: use one of baseline, baseline_best_of_k, "),
        ("os.path:join", {}, r"^compare\.methods 'os\.path:join' is not an rlcas\.methods\.method\."),
        ("", {}, r"^compare\.methods is empty: name rows of baseline, ce, .*, or all$"),
        (
            "baseline",
            {"compare": {"pools": {"nope": "x"}}},
            r"^compare\.pools nope=x: there is no pool 'nope': use one of sketch, image, class, mgdm, skin_sdm$",
        ),
        (
            "ncl",
            {"compare": {"equal_compute": "onl"}},
            r"^compare\.equal_compute is 'onl': it takes true, false or only; see --help for --comp.*_compute$",
        ),
        (
            "ncl",
            {"compare": {"equal_compute": None, "tune": -1}},
            r"^compare\.equal_compute is None: it takes true, false or only; .*_compute \(and 1 more\)$",
        ),
        ("baseline", {"compare": {"seeds": 0}}, r"^compare\.seeds is 0: input should be greater than or equal"),
        (
            "baseline",
            {"compare": {"sedes": 2}},
            r"^unknown setting compare\.sedes: did you mean compare\.seeds\?$",
        ),
        ("ce", {"sampler": {"metric": "nope"}}, r"^row ce: sampler\.metric 'nope' is unknown: use one of acc"),
        (
            "pbt",
            {"sampler": {"k": 1}},
            r"^row pbt: sampler\.agents pbt is a population of sampler\.k 1 members",
        ),
        (
            "baseline,rlcas_dose_replayed",
            {},
            r"^row rlcas_dose_replayed: it replays row rlcas_dose, which compare\.methods does not name: name both",
        ),
        ("all", {"sampler": {"metric": "nope"}}, r"^row baseline: sampler\.metric 'nope' is unknown"),
        (
            "all",
            {"classifier": {"method": "ncl"}},
            r"^classifier\.method ncl has no effect: every row of compare\.methods has its own: leave it out, or",
        ),
        ("baseline,ce", {"classifier": {"loss": "focal"}}, r"^classifier\.loss focal has no effect"),
        ("rlcas_frozen", {"sampler": {"agents": "state"}}, r"^sampler\.agents state has no effect"),
        ("lift", {}, r"^no row can be trained: lift: weights not given: --method\.lift\.pretrained takes them"),
        (
            "mgdm",
            {"synth": {"mgdm": {"uncertainty": "nope"}}},
            r"^pool mgdm: synth\.mgdm\.uncertainty 'nope' is unknown",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, methods: str, stated: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        planned(tmp_path, methods, **stated)


def test_of_all_rows_those_that_the_settings_do_not_suit_are_left_out_with_the_reason(tmp_path: Path) -> None:
    missing = {row.name: row.missing for row in planned(tmp_path, sampler={"k": 1}).rows if row.missing}
    assert set(missing) == {"lift", "skin_sdm", "rlcas_state", "pbt"}
    assert missing["pbt"].startswith("sampler.agents pbt is a population of sampler.k 1 members")


def test_settings_of_a_row_that_do_not_fit_the_data_are_one_line(tmp_path: Path) -> None:
    made = planned(tmp_path, "baseline", sampler={"initial_count": [1, 2]})
    with pytest.raises(
        UserError, match=r"^row baseline: sampler\.initial_count 1,2 has 2 counts, but the data"
    ):
        cells_of(made, DATA)
