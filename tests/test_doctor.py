"""The doctor: each verdict, and that nothing broken takes it down."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rlcas import console, doctor
from rlcas.doctor import access, data, machine, packages
from rlcas.doctor.finding import Finding, fault, ok
from rlcas.doctor.machine import Gpu
from rlcas.doctor.probe import run_python

GB = 10**9
TORCHVISION_REQUIRES = ["numpy", "torch (>=2.14.0)", "pillow (!=8.3.*,>=5.3.0)"]


def test_python_is_judged_by_what_the_package_requires() -> None:
    assert packages.judge_python("3.12.1", ">=3.11").verdict == "ok"
    old = packages.judge_python("3.10.9", ">=3.11")
    assert (old.verdict, old.found) == ("fault", "3.10.9 (required: >=3.11)")


def test_met_requirements_are_ok_and_those_of_extras_are_left_out() -> None:
    requires = ["ray[rllib,tune]~=2.60.0", "PyYAML", 'pytest>=8; extra == "dev"']
    finding = packages.judge_requirements(requires, {"ray": "2.60.3", "pyyaml": "6.0"})
    assert (finding.verdict, finding.found) == ("ok", "ray 2.60.3, PyYAML 6.0")


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ({"ray": "2.61.0"}, "ray 2.61.0 (required: ~=2.60.0)"),
        ({"ray": "2.54.0"}, "ray 2.54.0 (required: ~=2.60.0)"),
        ({}, "ray is absent (required: ~=2.60.0)"),
    ],
)
def test_an_unmet_requirement_is_a_fault_that_names_found_and_required(
    versions: dict[str, str], found: str
) -> None:
    finding = packages.judge_requirements(["ray[rllib,tune]~=2.60.0"], versions)
    assert finding == fault(found, 'pip install "ray[rllib,tune]~=2.60.0"')


def test_the_pin_of_an_extra_counts_when_the_extra_is_asked_for() -> None:
    pins = ['gymnasium==1.2.2; extra == "rllib"', 'gymnasium==9.9; extra == "other"']
    finding = packages.judge_requirements(pins, {"gymnasium": "1.4.0"}, extra="rllib")
    assert finding == fault("gymnasium 1.4.0 (required: ==1.2.2)", 'pip install "gymnasium==1.2.2"')
    assert packages.judge_requirements(pins, {"gymnasium": "1.2.2"}, extra="rllib").verdict == "ok"


@pytest.mark.parametrize(
    ("torch", "cuda", "torchvision", "verdict"),
    [
        ("2.15.0+cu132", "13.2", "0.29.2+cu132", "ok"),
        ("2.15.0", "13.2", "0.29.2+cu132", "ok"),
        ("2.15.0+cu132", "13.2", "0.29.2", "ok"),
        ("2.15.0+cpu", None, "0.29.2+cpu", "ok"),
        ("2.15.0", None, "0.29.2", "ok"),
        ("2.15.0", None, "0.29.2+cpu", "ok"),
        ("2.15.0+cpu", None, "0.29.2", "fault"),
        ("2.15.0+cpu", None, "0.29.2+cu132", "fault"),
        ("2.15.0+cu132", "13.2", "0.29.2+cpu", "fault"),
        ("2.15.0+cu126", "12.6", "0.29.2+cu132", "fault"),
        ("2.15.0", None, "0.29.2+cu132", "fault"),
        ("2.13.0+cpu", None, "0.29.2+cpu", "fault"),
    ],
)
def test_torch_and_torchvision_must_be_builds_of_one_kind_and_made_for_each_other(
    torch: str, cuda: str | None, torchvision: str, verdict: str
) -> None:
    finding = packages.judge_torch_build(torch, cuda, torchvision, TORCHVISION_REQUIRES)
    assert finding.verdict == verdict
    assert torch in finding.found and torchvision in finding.found
    assert ("from one index" in finding.fix) == (verdict == "fault")


def test_a_torch_that_torchvision_does_not_admit_is_named_with_what_is_required() -> None:
    finding = packages.judge_torch_build("2.13.0", None, "0.29.2", TORCHVISION_REQUIRES)
    assert finding.found.endswith("which requires torch (>=2.14.0)")


def test_an_absent_torch_is_a_fault_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (finding,) = doctor.examine({"torch build": packages.torch_build})
    assert finding.found == "the check failed: ModuleNotFoundError: torch is not installed"


def test_absent_byte_code_warns_only_where_python_never_writes_it() -> None:
    assert packages.judge_byte_code([], dont_write=True).verdict == "ok"
    assert packages.judge_byte_code(["torch"], dont_write=False).verdict == "ok"
    finding = packages.judge_byte_code(["torch", "ray"], dont_write=True)
    assert finding.verdict == "warn"
    assert finding.found.startswith("torch, ray without byte code") and "compileall" in finding.fix


def test_a_gpu_is_described_by_name_memory_and_bf16() -> None:
    finding = machine.judge_gpu(
        [Gpu("H100", 80 * GB, True), Gpu("GTX 1080", 8 * GB, False)], "13.2", driver=True
    )
    assert finding == ok("H100, 80.0 GB, bf16; GTX 1080, 8.0 GB, no bf16")


def test_no_gpu_is_ok_but_one_that_torch_cannot_use_is_a_warning() -> None:
    assert machine.judge_gpu([], "13.2", driver=False) == ok("none: everything runs on the CPU")
    without_cuda = machine.judge_gpu([], None, driver=True)
    unseen = machine.judge_gpu([], "13.2", driver=True)
    assert (without_cuda.verdict, unseen.verdict) == ("warn", "warn")
    assert "built without CUDA" in without_cuda.found and "(CUDA 13.2) finds no GPU" in unseen.found


def test_cores_say_what_an_episode_takes() -> None:
    assert machine.describe_cores("8", None, 2) == ok(
        "8; OMP_NUM_THREADS not set; an episode takes 2 (cluster.threads_per_episode)"
    )
    assert "OMP_NUM_THREADS 64;" in machine.describe_cores("8", "64", 2).found


def test_little_memory_is_a_warning() -> None:
    assert machine.judge_memory(16 * GB) == ok("16.0 GB available")
    assert machine.judge_memory(3 * GB).verdict == "warn"


@pytest.mark.parametrize(("free_gb", "verdict"), [(1.9, "fault"), (2.1, "warn"), (9.9, "warn"), (10.1, "ok")])
def test_a_full_disk_is_a_fault_and_a_nearly_full_one_a_warning(free_gb: float, verdict: str) -> None:
    finding = machine.judge_disk(Path("/scratch"), free_gb * GB)
    assert finding.verdict == verdict
    assert finding.found == f"{free_gb} GB free in /scratch"


def test_shared_memory_must_hold_rays_share_of_memory() -> None:
    assert machine.judge_shared_memory(None, 16 * GB).verdict == "ok"
    assert machine.judge_shared_memory(5 * GB, 16 * GB).verdict == "ok"
    assert machine.judge_shared_memory(11 * GB, 512 * GB).verdict == "ok"
    small = machine.judge_shared_memory(64e6, 16 * GB)
    assert small.verdict == "warn" and "--shm-size=5.3g" in small.fix


def test_rlcas_data_that_is_not_a_folder_is_a_fault(tmp_path: Path) -> None:
    assert data.judge_data(str(tmp_path), [], {}).verdict == "ok"
    finding = data.judge_data(str(tmp_path / "gone"), [], {})
    assert finding.verdict == "fault" and f"RLCAS_DATA {tmp_path / 'gone'} is not a folder" in finding.found
    assert data.judge_data(None, ["breastmnist"], {}).found == (
        "RLCAS_DATA is not set; MedMNIST sets here: breastmnist"
    )


def test_a_file_that_is_not_the_official_one_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLCAS_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.data().found.endswith("none yet, --data NAME fetches one")
    (tmp_path / "breastmnist.npz").write_bytes(b"cut short")
    finding = data.data()
    assert finding.verdict == "fault"
    assert finding.found.endswith("not the official file: breastmnist")
    assert f"{tmp_path / 'breastmnist.npz'} is not the official file (md5 " in finding.fix


def test_the_official_files_are_found_and_right(real_data: Path) -> None:
    finding = data.data()
    assert finding.verdict == "ok" and "breastmnist, breastmnist_64" in finding.found


def test_a_check_that_raises_is_a_fault_with_the_errors_text_and_the_others_go_on() -> None:
    def broken() -> Finding:
        raise OSError("no such\ndevice")

    first, second = doctor.examine({"disk": broken, "rest": lambda: ok("fine")})
    assert (first.name, first.verdict) == ("disk", "fault")
    assert first.found == "the check failed: OSError: no such device"
    assert second == Finding("ok", "fine", name="rest")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise ValueError('operator torchvision::nms does not exist')",
            "ValueError: operator torchvision::nms",
        ),
        ("import sys; sys.exit(3)", "it ended with status 3"),
        ("import os; os.abort()", "it ended with status -6"),
    ],
)
def test_a_failing_probe_raises_the_last_line_of_its_stderr(code: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        run_python(code, 60)


def test_a_probe_that_hangs_is_ended() -> None:
    with pytest.raises(RuntimeError, match=r"no answer within 0\.1 s"):
        run_python("import threading; threading.Event().wait()", 0.1)


FINDINGS = [
    Finding("ok", "3.11.9", name="Python"),
    Finding("warn", "1 GB", "free some", name="memory"),
    Finding("fault", "[red]absent", "pip install it", name="dependencies"),
]


def test_a_log_gets_a_line_a_finding_and_a_fault_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.report(FINDINGS) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok     Python: 3.11.9",
        "warn   memory: 1 GB",
        "       fix: free some",
        "fault  dependencies: [red]absent",
        "       fix: pip install it",
        "1 at fault, 1 with a warning, 1 ok",
    ]
    assert doctor.report(FINDINGS[:2]) == 0


def test_a_terminal_gets_aligned_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        console, "_CONSOLE", Console(file=screen, force_terminal=True, width=100, color_system=None)
    )
    assert doctor.report(FINDINGS) == 1
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    column = lines[0].index("3.11.9")
    assert [line[column:] for line in lines[:5]] == [
        "3.11.9", "1 GB", "fix: free some", "[red]absent", "fix: pip install it",
    ]  # fmt: skip


def test_the_doctor_reports_even_without_rich_and_numpy() -> None:
    code = (
        "import sys\n"
        "sys.modules['rich'] = sys.modules['numpy'] = None\n"
        "from rlcas import doctor\n"
        "from rlcas.doctor import data\n"
        "sys.exit(doctor.report(doctor.examine({'data': data.data})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("fault  data: the check failed: ModuleNotFoundError: import of numpy halted")


@pytest.mark.medium
def test_a_torchvision_that_cannot_be_imported_is_a_fault_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    finding = packages.torchvision_import()
    assert finding.verdict == "fault"
    assert finding.found.endswith("fails: RuntimeError: operator torchvision::nms does not exist")
    assert "from one index" in finding.fix


@pytest.mark.medium
def test_ray_that_does_not_start_is_a_fault_and_ray_that_does_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.ray_start().verdict == "ok"
    monkeypatch.setattr(packages, "RAY_LIMIT_SECONDS", 0.1)
    finding = packages.ray_start()
    assert (finding.verdict, finding.found) == ("fault", "Ray does not start: no answer within 0.1 s")


@pytest.mark.medium
def test_workers_that_are_nicer_than_the_command_are_warned_of() -> None:
    assert packages.judge_niceness(3, 3, "started").found == "started; workers at niceness 3"
    warned = packages.judge_niceness(0, 15, "started")
    assert (
        warned.verdict == "warn" and warned.found == "started; workers at niceness 15, 15 above this process's"
    )
    assert warned.fix.startswith("unset RAY_worker_niceness")


def test_the_command_finds_this_installation_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlcas", "doctor"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in doctor.CHECKS:
        assert f" {name}: " in done.stdout
    assert f"free in {tmp_path}" in done.stdout


def test_a_token_that_others_may_read_or_that_is_not_asked_for_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ray" / "auth_token"
    fresh = access.ray_token()
    assert fresh.verdict == "warn" and fresh.found.startswith(
        f"no {path} yet: the Ray that rlcas starts makes it"
    )
    assert "`ray start` starts before asks nobody" in fresh.found
    assert fresh.fix.startswith("ray get-auth-token --generate, and export RAY_AUTH_MODE=token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "`ray start` refuses to start" in access.ray_token().found
    monkeypatch.delenv("RAY_AUTH_MODE")
    path.parent.mkdir()
    path.write_text("secret")
    path.chmod(0o644)
    open_to_others = access.ray_token()
    assert (open_to_others.verdict, open_to_others.fix) == ("warn", f"chmod 600 {path}")
    path.chmod(0o600)
    assert access.ray_token() == ok(f"asked for; {path} is yours alone to read")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    assert access.ray_token().fix == "name the file with the token, or unset it"
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert access.ray_token() == ok("asked for; RAY_AUTH_TOKEN holds it")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert access.ray_token().fix == "unset RAY_AUTH_MODE"
