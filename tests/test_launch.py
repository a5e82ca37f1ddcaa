"""The files of `cluster/launch/`, held to what Ray, KubeRay and Slurm take."""

from __future__ import annotations

import copy
import functools
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import kuberay
import pytest
import yaml
from doc_commands import check_script

from rlcas.commands.command import parse
from rlcas.commands.table import COMMANDS, name_of

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "cluster" / "launch"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def claim_and_job() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / "rayjob.yaml").read_text()))


@pytest.fixture(scope="module")
def job(claim_and_job: list[dict[str, Any]]) -> dict[str, Any]:
    return claim_and_job[1]["spec"]


@pytest.fixture(scope="module")
def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]]


def test_each_field_of_the_ray_job_is_documented(claim_and_job: list[dict[str, Any]]) -> None:
    claim, whole = claim_and_job
    assert list(kuberay.faults(claim, kuberay.CLAIM)) == []
    assert list(kuberay.faults(whole, kuberay.JOB)) == []


def places_of(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every field, at any depth."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places_of(inner, *place, key)


def test_a_misspelt_or_mistyped_field_is_found_at_any_depth(claim_and_job: list[dict[str, Any]]) -> None:
    places = list(places_of(claim_and_job))
    assert len(places) > 60
    for which, *above, name in places:
        schema = (kuberay.CLAIM, kuberay.JOB)[int(which)]
        for spoil in (lambda at, name: {f"{name}s": at.pop(name)}, lambda at, name: {name: None}):
            broken = copy.deepcopy(claim_and_job[int(which)])
            at = functools.reduce(operator.getitem, above, broken)  # type: ignore[arg-type]
            at.update(spoil(at, name))
            assert any(str(name) in fault for fault in kuberay.faults(broken, schema)), (above, name)


def test_the_workers_of_the_ray_job_are_as_many_as_it_asks_and_a_token_keeps_others_out(
    job: dict[str, Any], groups: list[dict[str, Any]]
) -> None:
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for group in groups[1:]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_runtime_environment_of_the_ray_job_uploads_nothing(job: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    environment = yaml.safe_load(job["runtimeEnvYAML"])
    assert RuntimeEnv(**environment) and "working_dir" not in environment


def test_every_pod_of_the_ray_job_has_the_image_a_gpu_and_the_shared_volume(
    claim_and_job: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> None:
    claim, _ = claim_and_job
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["nvidia.com/gpu"] == requests["nvidia.com/gpu"] == 1  # Kubernetes takes no other request
        assert container["image"].endswith(f"/rlcas:{metadata.version('rlcas')}")
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert mount == {"name": volume["name"], "mountPath": "/mnt/cluster_storage"}
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_ray_job_runs_a_command_of_rlcas_on_the_shared_volume(
    job: dict[str, Any], groups: list[dict[str, Any]]
) -> None:
    check_script(job["entrypoint"])
    program, *words = shlex.split(job["entrypoint"])
    assert program == "rlcas"
    given = parse(name_of(words), COMMANDS[name_of(words)], words[1:]).given
    assert given["out"].startswith("/mnt/cluster_storage/")
    num_pods = 1 + sum(group["replicas"] for group in groups[1:])
    assert int(given["sampler.k"]) == int(given["cluster.synth_workers"]) == num_pods


def test_manifest_and_image_have_the_ray_that_rlcas_requires(job: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    image = re.search(r"^FROM rayproject/ray:([\d.]+)-py3", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    assert pinned and image and pinned[1] == image[1] == job["rayClusterSpec"]["rayVersion"]


def test_the_image_is_made_of_what_the_package_consists_of() -> None:
    copied = re.findall(r"^COPY --chown=\S+ (.*) \S+$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    readme, licences = project["project"]["readme"], project["project"]["license-files"]
    assert sources == {*packages, "pyproject.toml", "constraints.txt", readme, *licences}
    assert "cluster" in project["project"]["optional-dependencies"]


@pytest.fixture(params=["cluster-local.yaml", "cluster-aws.yaml"])
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / request.param).read_text())


def test_ray_up_takes_the_cluster_as_far_as_it_goes_without_the_cloud(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config({"cluster_synced_files": [], **cluster})
    prepared = prepare_config(cluster)
    validate_config(prepared)
    workers = [kind for name, kind in prepared["available_node_types"].items() if name != "head"]
    assert [(kind["min_workers"], kind["max_workers"]) for kind in workers] == [(2, 2)]


def test_every_node_of_ray_up_gets_the_token_and_the_dashboard_stays_on_loopback(
    cluster: dict[str, Any],
) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        *_, command = cluster[f"{role}_start_ray_commands"]
        assert "export RAY_AUTH_MODE=token" in command
        options = started(command)
        assert (options["head"], options["address"]) == (
            (True, None) if role == "head" else (False, "$RAY_HEAD_IP:6379")
        )
        assert options["dashboard_host"] in (None, "127.0.0.1")


def started(command: str) -> dict[str, Any]:
    """Return the options of the `ray start` in a shell's command, as Ray's own parser reads them."""
    from ray.scripts.scripts import start

    found = re.search(r"\bray start ([^;&|]*)", command)
    assert found
    return start.make_context("ray start", shlex.split(found[1])).params


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs of this machine's in the way of ssh and Slurm, which write down what they are asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in {
        "ssh": 'printf "%s\\n" "$1: $2" >>"$RECORD"; case $2 in *cat*) cat >>"$RECORD"; echo >>"$RECORD";; esac',
        "scontrol": 'printf "%s\\n" node1 node2 node3',
        "srun": 'printf "%s\\0" "$@" >"$RECORD"; exec $AS_IF',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RLCAS_VENV", str(BIN.parent))
    return tmp_path / "record"


def test_nodes_started_by_hand_have_one_token_and_one_head(recorded: Path) -> None:
    subprocess.run(["sh", LAUNCH / "nodes.sh", "start", "alpha", "beta"], check=True, capture_output=True)
    token = (recorded.parent / ".ray" / "auth_token").read_text()
    *gave, head, worker = recorded.read_text().splitlines()
    assert len(token) >= 32 and gave[1::2] == [token, token]
    assert not any(token in line for line in (*gave[::2], head, worker))
    assert head.startswith("alpha: export RAY_AUTH_MODE=token") and worker.startswith("beta: export RAY_AUTH")
    assert started(head)["head"] and started(head)["port"] == 6379
    assert (started(worker)["head"], started(worker)["address"]) == (False, "alpha:6379")


def test_nodes_stopped_by_hand_are_all_stopped(recorded: Path) -> None:
    subprocess.run(["sh", LAUNCH / "nodes.sh", "stop", "alpha", "beta"], check=True)
    assert [line.split(":")[0] for line in recorded.read_text().splitlines()] == ["alpha", "beta"]
    assert all(line.endswith("ray stop") for line in recorded.read_text().splitlines())


def test_a_node_that_is_gone_does_not_keep_the_others_running(recorded: Path) -> None:
    ssh = recorded.parent / "programs" / "ssh"
    ssh.write_text(ssh.read_text() + '[ "$1" != alpha ]\n')
    done = subprocess.run(["sh", LAUNCH / "nodes.sh", "stop", "alpha", "beta"])
    assert done.returncode == 1
    assert [line.split(":")[0] for line in recorded.read_text().splitlines()] == ["alpha", "beta"]


def test_users_of_ssh_are_no_part_of_rays_address(recorded: Path) -> None:
    words = ["sh", LAUNCH / "nodes.sh", "start", "ubuntu@alpha", "ubuntu@beta"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    worker = recorded.read_text().splitlines()[-1]
    assert worker.startswith("ubuntu@beta: ") and started(worker)["address"] == "alpha:6379"
    assert "RAY_ADDRESS=alpha:6379\n" in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RLCAS_VENV", ".venv", "RLCAS_VENV .venv is relative"),
        ("RAY_PORT", "abc", "RAY_PORT abc is not a port"),
    ],
)
def test_what_no_node_could_use_is_refused(name: str, value: str, message: str, recorded: Path) -> None:
    words = ["sh", LAUNCH / "nodes.sh", "start", "alpha", "beta"]
    done = subprocess.run(words, env={**os.environ, name: value}, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not recorded.exists()


@pytest.mark.parametrize("words", [["start"], ["restart", "alpha"]])
def test_nodes_by_hand_refuse_what_they_cannot_do(words: list[str], recorded: Path) -> None:
    done = subprocess.run(["sh", LAUNCH / "nodes.sh", *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not recorded.exists()


@pytest.fixture
def tunnelled(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let ssh write down all that it is asked, and an rlcas what it is given; return where."""
    venv = recorded.parent / "venv"
    (venv / "bin").mkdir(parents=True)
    for program, last in ((recorded.parent / "programs" / "ssh", ""), (venv / "bin" / "rlcas", "; exit 3")):
        program.write_text(f'#!/bin/sh\nprintf "%s " "${{0##*/}}" "$@" >>"$RECORD"; echo >>"$RECORD"{last}\n')
        program.chmod(0o755)
    monkeypatch.setenv("RLCAS_VENV", str(venv))
    return recorded


def test_a_job_is_submitted_through_a_tunnel_that_is_closed_again_and_its_exit_status_passed_on(
    tunnelled: Path,
) -> None:
    words = ["run", "--out", "/shared/runs/first"]
    done = subprocess.run(
        ["sh", LAUNCH / "submit.sh", "alpha", *words], env={**os.environ, "LOCAL_PORT": "8300"}
    )
    opened, submitted, closed = (shlex.split(line) for line in tunnelled.read_text().splitlines())
    assert done.returncode == 3
    assert opened[opened.index("-L") + 1 :] == ["127.0.0.1:8300:127.0.0.1:8265", "alpha"]
    assert submitted == ["rlcas", "submit", "--address", "http://127.0.0.1:8300", "--", *words]
    socket = opened[opened.index("-S") + 1]
    assert closed == ["ssh", "-S", socket, "-O", "exit", "alpha"] and not Path(socket).parent.exists()


def test_without_a_tunnel_nothing_is_submitted(tunnelled: Path) -> None:
    ssh = tunnelled.parent / "programs" / "ssh"
    ssh.write_text(f'{ssh.read_text()}[ "$1" != -fNM ] || exit 255\n')
    done = subprocess.run(["sh", LAUNCH / "submit.sh", "alpha", "run"])
    assert done.returncode == 255 and "rlcas" not in tunnelled.read_text().replace("rlcas-", "")


def test_a_submission_without_a_command_is_refused(tunnelled: Path) -> None:
    done = subprocess.run(["sh", LAUNCH / "submit.sh", "alpha"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: sh submit.sh HEAD COMMAND ...\n")
    assert not tunnelled.exists()


WORDS = ["run", "--data", "npz:/shared/my data.npz", "--out", "/shared/runs/first"]


def sbatch(folder: Path, as_if: str) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm does on the first of three nodes."""
    slurm = {"JOB_NODELIST": "node[1-3]", "JOB_NUM_NODES": "3", "JOB_ID": "7", "CPUS_PER_TASK": "16"}
    environment = {**os.environ, **{f"SLURM_{key}": value for key, value in slurm.items()}, "AS_IF": as_if}
    script = ["bash", LAUNCH / "slurm.sbatch", *WORDS]
    return subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True)


def test_slurm_asks_symmetric_run_for_what_it_takes(recorded: Path) -> None:
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    done = sbatch(recorded.parent, "touch .rlcas-7.ended")
    assert done.returncode == 0, done.stderr
    words = recorded.read_text().rstrip("\0").split("\0")
    at, end = words.index("symmetric-run"), words.index("--")
    assert words[:at] == ["--ntasks=3", "--cpus-per-task=16", "ray"]
    options = symmetric_run.make_context("symmetric-run", words[at + 1 :]).params
    assert (options["address"], options["min_nodes"]) == ("node1:6379", 3)
    own = curate_and_validate_ray_start_args(words[at + 1 : end])
    for role in (["--head", "--port=6379"], ["--address=node1:6379", "--block"]):
        start = started(shlex.join(["ray", "start", *role, *own]))
        assert (start["num_cpus"], start["num_gpus"], start["dashboard_host"]) == (16, 0, "127.0.0.1")
    assert words[-len(WORDS) :] == WORDS


def test_the_command_in_slurms_job_gets_rays_address_and_its_words_whole(recorded: Path) -> None:
    sbatch(recorded.parent, "true")
    words = recorded.read_text().rstrip("\0").split("\0")
    programs = Path(shutil.which("srun") or "").parent
    (programs / "rlcas").write_text('#!/bin/sh\nprintf "%s\\n" "$RAY_ADDRESS" "$@"; exit 3\n')
    (programs / "rlcas").chmod(0o755)
    done = subprocess.run(words[words.index("--") + 1 :], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (3, ["node1:6379", *WORDS])
    assert not (recorded.parent / ".rlcas-7.ended").exists()


@pytest.mark.parametrize("as_if", ["false", "true"])
def test_slurms_job_fails_where_the_command_fails_or_ray_never_started(as_if: str, recorded: Path) -> None:
    assert sbatch(recorded.parent, as_if).returncode == 1


def test_every_way_in_is_documented() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert [path.name for path in LAUNCH.iterdir() if f"cluster/launch/{path.name}" not in page] == []
