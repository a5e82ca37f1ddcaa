"""The functions of `rlcas`: what the commands do, with folders as text or as paths."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import write_npz
from fake_comparison import write_fake_comparison
from fake_run import write_run
from saved_run import save_run
from tiny import tiny_config, tiny_data, tiny_set

import rlcas
from rlcas.config import CompareRunConfig
from rlcas.errors import UserError
from rlcas.jsonable import jsonable
from rlcas.settings import COMPARE_CONFIG_FILE, as_yaml

COMMANDS = ("run", "train", "sweep", "compare", "resume", "report", "evaluate", "predict", "export")
OTHERS = (
    "synthesise",
    "sample",
    "score",
    "describe",
    "diagnose",
    "settings_of",
    "write_report",
    "evaluate_data",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), tiny_data(), tiny_config())


def test_the_commands_are_functions_whatever_is_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(rlcas.__path__)}
    assert not modules & {*COMMANDS, *OTHERS}, "importing a module of this name would hide the function"
    # All modules of the package, in a process whose other tests need not live with them.
    words = f"""
import inspect, pkgutil, rlcas
for module in pkgutil.walk_packages(rlcas.__path__, "rlcas."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
print(all(inspect.isfunction(getattr(rlcas, name)) for name in {(*COMMANDS, *OTHERS)}))
"""
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_every_function_that_is_offered_exists() -> None:
    for name in (*COMMANDS, *OTHERS):
        assert inspect.isfunction(getattr(rlcas, name)), name
    assert {*COMMANDS, *OTHERS} < set(dir(rlcas))


def test_a_classifier_is_evaluated_predicted_and_exported_from_a_folder_given_as_text(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tiny_set(12, 3)
    name = write_npz(tmp_path, test_images=images.images_NCHW[:, 0], test_labels=images.labels_N[:, None])
    given = {"data": name, "device": "cpu"}
    figures = rlcas.evaluate(str(run), given)
    assert jsonable(figures) == jsonable(rlcas.evaluate(run, given)) and figures["n"] == 12
    assert "test of 12 images: acc " in capsys.readouterr().out
    np.savez(tmp_path / "new.npz", images=images.images_NCHW[:, 0])
    as_text = rlcas.predict(str(run), str(tmp_path / "new.npz"), {"device": "cpu"})
    as_path = rlcas.predict(run, tmp_path / "new.npz", {"device": "cpu"})
    np.testing.assert_array_equal(as_text.p_NC, as_path.p_NC)
    as_text.write(str(tmp_path / "table.csv"))
    assert (tmp_path / "table.csv").read_text().startswith("path,label,a,b,c\n")
    assert rlcas.export(str(run), format="pt2") == run / "model.pt2"
    assert rlcas.export(str(run), str(tmp_path / "model.pt2")) == tmp_path / "model.pt2"


def test_a_report_is_written_of_whatever_the_folder_holds(tmp_path: Path) -> None:
    of_run = write_run(tmp_path / "run", num_classes=2, epochs=2)
    assert rlcas.report(str(of_run)) == rlcas.write_report(str(of_run)) == of_run / "report.html"
    compared = write_fake_comparison(tmp_path / "compared", num_classes=2, seeds=1, rows=("baseline",))
    assert rlcas.report(str(compared)) == compared / "report.html"
    assert (compared / "compare.md").is_file()
    with pytest.raises(UserError, match=r"is not a run's folder: it has no config\.yaml"):
        rlcas.report(str(tmp_path))


@pytest.mark.parametrize("name", ["resume", "sample", "score", "evaluate"])
def test_a_folder_of_nothing_is_refused_as_text_too(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run's folder: it has no config\.yaml"):
        getattr(rlcas, name)(str(tmp_path))


def test_phase_two_alone_needs_a_pool() -> None:
    with pytest.raises(UserError, match=r"^pool is not set: name one with --pool DIR"):
        rlcas.train(rlcas.settings_of({"data": "phantom"}))


def test_resume_continues_a_comparison_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CompareRunConfig.model_validate({"data": "phantom", "compare": {"methods": ("nothing",)}})
    (tmp_path / COMPARE_CONFIG_FILE).write_text(as_yaml(config))
    assert importlib.import_module("cluster.comparison.resume").resume is rlcas.resume
    # Only a comparison's own check knows the names of its rows.
    with pytest.raises(UserError, match=r"compare\.methods .*nothing"):
        rlcas.resume(str(tmp_path))
