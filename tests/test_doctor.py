from __future__ import annotations

import hashlib

import pytest

from rlcas import doctor
from rlcas.doctor import Finding


@pytest.mark.parametrize(
    ("torch_version", "torch_cuda", "torchvision_version", "level"),
    [
        ("2.15.0+cu132", "13.2", "0.29.2", "ok"),
        ("2.15.0+cu132", "13.2", "0.29.2+cu132", "ok"),
        ("2.15.0+cpu", None, "0.29.2+cpu", "ok"),
        ("2.15.0", None, "0.29.2", "ok"),
        ("2.15.0", None, "0.29.2+cpu", "ok"),
        ("2.15.0+cpu", None, "0.29.2", "fault"),
        ("2.15.0+cu132", "13.2", "0.29.2+cpu", "fault"),
        ("2.15.0+cu132", "13.2", "0.29.2+cu130", "fault"),
        ("2.15.0+cpu", None, None, "fault"),
    ],
)
def test_torch_and_torchvision_must_be_of_one_build(torch_version, torch_cuda, torchvision_version, level):
    finding = doctor.judge_torch_builds(torch_version, torch_cuda, torchvision_version)
    assert finding.level == level
    assert ("one index" in finding.mend) is (level == "fault")


def test_packages_absent_or_too_old_are_faults_with_the_command_that_mends_them():
    requirements = ["ray[rllib,tune]~=2.60.0", "gymnasium==1.2.2", "numpy", "timm>=1.0.20"]
    installed = {"ray": "2.60.3", "gymnasium": "1.4.0", "numpy": None, "timm": "1.0.31"}
    assert doctor.judge_packages(requirements, installed) == [
        Finding("gymnasium", "fault", "1.4.0, but ==1.2.2 is required", "pip install 'gymnasium==1.2.2'"),
        Finding("numpy", "fault", "not installed", "pip install 'numpy'"),
    ]


def test_packages_that_are_all_there_are_one_finding():
    assert doctor.judge_packages(["numpy"], {"numpy": "2.4.6"}) == [
        Finding("packages", "ok", "1 requirements met")
    ]


def test_rays_pin_of_gymnasium_is_among_the_requirements(monkeypatch):
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["numpy", 'gymnasium==0.0.1; extra == "rllib"']
    )
    assert [finding.name for finding in doctor.check_packages()] == ["gymnasium"]


def test_an_old_python_is_a_fault():
    assert doctor.judge_python((3, 10, 4)).level == "fault"
    assert doctor.judge_python((3, 11, 0)).level == "ok"


def test_an_import_that_fails_is_found_with_its_last_line_and_does_not_raise():
    finding = doctor.check_import(
        "thing", "raise RuntimeError('operator torchvision::nms does not exist')", "mend it"
    )
    assert finding.level == "fault"
    assert finding.found.endswith("fails: RuntimeError: operator torchvision::nms does not exist")
    assert finding.mend == "mend it"


def test_an_import_that_works_is_ok():
    assert doctor.check_import("json", "import json", "").level == "ok"


@pytest.mark.parametrize(
    ("driver", "torch_cuda", "level", "words"),
    [
        ("no driver", None, "ok", ""),
        ("no driver", "13.2", "ok", ""),
        ("driver 580.1", None, "fault", "CUDA builds"),
        ("driver 470.1", "13.2", "fault", "driver for CUDA 13.2"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_a_fault(driver, torch_cuda, level, words):
    finding = doctor.judge_no_gpu(driver, torch_cuda)
    assert finding.level == level
    assert words in finding.mend


@pytest.mark.parametrize(("omp", "level"), [(None, "ok"), ("2", "ok"), ("3", "warn")])
def test_more_threads_than_cores_are_a_warning(omp, level):
    assert doctor.judge_threads(2, omp).level == level


def test_little_room_is_a_warning():
    assert doctor.judge_room("room in /tmp", 4.9, 5.0).mend == "make 5 GB free; a run may stop for want of it"
    assert doctor.judge_room("room in /tmp", 5.1, 5.0).level == "ok"


def test_an_altered_data_file_is_a_fault(tmp_path):
    path = tmp_path / "breastmnist.npz"
    path.write_bytes(b"altered")
    (finding,) = doctor.check_data(str(tmp_path))
    assert finding.level == "fault"
    assert doctor.medmnist_md5s()["breastmnist.npz"] in finding.found
    assert str(path) in finding.mend


def test_a_data_file_as_published_is_ok(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"whole")
    assert doctor.judge_md5(path, hashlib.md5(b"whole").hexdigest()).level == "ok"


def test_a_data_folder_that_is_not_there_is_a_fault(tmp_path):
    finding = doctor.check_data(str(tmp_path / "none"))
    assert finding.level == "fault"
    assert "RLCAS_DATA" in finding.found


def test_the_real_data_files_are_as_published(real_data):
    findings = doctor.check_data(str(real_data))
    assert {finding.level for finding in findings} == {"ok"}
    assert "breastmnist.npz" in [finding.name for finding in findings]


def test_a_check_that_breaks_is_itself_a_fault():
    def broken():
        raise OSError("no such device")

    (finding,) = doctor._carried_out("gpu", broken)
    assert finding == Finding("gpu", "fault", "the check itself failed: OSError: no such device")


@pytest.mark.parametrize(("level", "status"), [("ok", 0), ("warn", 0), ("fault", 1)])
def test_the_exit_status_is_one_only_for_faults(level, status, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "diagnose", lambda deep: [Finding("thing", level, "as it is", "mend it so")])
    assert doctor.main_report() == status
    assert "thing: mend it so" in capsys.readouterr().out


@pytest.mark.medium
def test_this_installation_is_examined_whole():
    findings = {finding.name: finding for finding in doctor.diagnose(deep=True)}
    assert {"python", "torch builds", "torchvision.ops", "diffusers", "ray", "gpu", "cores"} < set(findings)
    assert findings["ray starts"].found == "a worker ran a task"
