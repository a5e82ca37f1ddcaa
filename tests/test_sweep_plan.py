"""The plan of a sweep: its trials, its phases one, and what the searches refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.sweeps.plan import plan
from rlcas import settings
from rlcas.errors import UserError


def planned(tmp_path: Path, **stated: Any) -> Any:
    return plan({"data": "phantom", "out": str(tmp_path / "out")} | stated)


def test_the_default_is_gamma_k_and_reward_and_their_products(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert len(made.trials) == 3 * 2 * len({trial.settings["sampler.reward"] for trial in made.trials})
    assert {trial.pool for trial in made.trials} == {"pools/01"}
    last = made.trials[-1]
    config = made.configs[last.name]
    assert config.out == tmp_path / "out/trials" / last.name
    assert config.sampler.baseline_gamma == last.settings["sampler.baseline_gamma"] == 0.99
    assert config.sampler.k == last.settings["sampler.k"] == 3
    assert list(tmp_path.iterdir()) == []


def test_what_phase_one_depends_on_has_one_phase_one_a_value(tmp_path: Path) -> None:
    over = {"seed": "1,2", "sampler.k": "1,2", "synth.generation.guidance": "1,2"}
    made = planned(tmp_path, sweep={"over": over})
    assert len(made.trials) == 8 and len(made.pools) == 4
    for trial in made.trials:
        pool, config = made.pools[trial.pool], made.configs[trial.name]
        assert (pool.seed, pool.synth) == (config.seed, config.synth)
        assert pool.sampler.k == 3, "the trials that share it differ in this"


def test_a_swept_preset_brings_its_settings(tmp_path: Path) -> None:
    made = planned(tmp_path, sweep={"over": {"preset": "quick,best"}})
    assert [config.sampler.epochs for config in made.configs.values()] == [10, 30]
    assert len(made.pools) == 2


def test_random_draws_are_planned_before_the_start(tmp_path: Path) -> None:
    sweep = {"search": "random", "trials": 5, "over": {"classifier.lr": "1e-4..1e-2", "sampler.k": "1..3"}}
    made = planned(tmp_path, sweep=sweep)
    assert [trial.name for trial in made.trials] == ["001", "002", "003", "004", "005"]
    assert made.trials == planned(tmp_path, sweep=sweep).trials


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"sweep": {"metric": "few"}},
            r"^sweep\.metric 'few' is unknown: use one of acc, auc, average_precision, f1",
        ),
        ({"sweep": {"trials": 1}}, r"^sweep\.trials is 1: input should be greater than or equal to 2"),
        ({"sweep": {"serch": "grid"}}, r"^unknown setting sweep\.serch: did you mean sweep\.search\?$"),
        (
            {"sweep": {"search": "pbt"}},
            r"^sweep\.over sampler\.k=1,3: sweep\.search pbt changes settings in mid-run, which sampler\.k cannot be",
        ),
        (
            {"sweep": {"search": "asha", "over": {"sampler.epochs": "4,8"}}},
            r"^sweep\.over sampler\.epochs=4,8: sweep\.search asha compares trials at the same epoch",
        ),
        (
            {"sweep": {"over": {"sampler.reward": "cubic,nope"}}},
            r"^sweep\.over sampler\.reward=nope: sampler\.reward 'nope' is unknown: use one of cubic",
        ),
        (
            {"sweep": {"over": {"sampler.initial_count": "2,20", "sampler.max_count": "16,32"}}},
            r"^sweep\.over sampler\.initial_count=20: sampler\.initial_count 20 is above sampler\.max_count 16",
        ),
        (
            {"sampler.reward": "nope", "sweep": {"over": {"sampler.k": "1,2"}}},
            r"sampler\.reward 'nope' is unknown",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        planned(tmp_path, **stated)
    assert "\n" not in str(caught.value)


def test_one_file_serves_a_run_and_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("sampler: {k: 2}\nsweep: {over: {sampler: {lr: [0.1, 0.2]}, seed: '1,2'}}\n")
    assert settings.resolve(given={}, file=file).sampler.k == 2
    swept = settings.of_sweep(settings.stated(given={}, file=file))
    assert swept.sweep.over == {"sampler.lr": (0.1, 0.2), "seed": "1,2"}
    assert "sweep" not in settings.as_yaml(swept.run)
    file.write_text("sweep: {serch: grid}\n")
    with pytest.raises(UserError, match=r"unknown setting sweep\.serch"):
        settings.resolve(given={}, file=file)
