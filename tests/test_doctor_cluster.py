"""`rlcas doctor --cluster`: what it says of nodes, by hand-made facts and on a cluster started by hand."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from by_hand import environment_with_token, free_port, head, new_folder, node

from cluster import doctor
from rlcas.cli import main
from rlcas.doctor.finding import Finding, ok


def test_the_digest_of_the_code_knows_names_and_where_a_module_ends(tmp_path: Path) -> None:
    def digest_of(name: str, **modules: str) -> str:
        for module, text in modules.items():
            (tmp_path / name / "rlcas").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "rlcas" / f"{module}.py").write_text(text)
        digest = hashlib.sha256()
        doctor.add_sources(digest, tmp_path / name / "rlcas")
        return digest.hexdigest()

    one = digest_of("one", a="x = 1\n", b="y = 2\n")
    assert one == digest_of("copy", b="y = 2\n", a="x = 1\n")
    assert one != digest_of("renamed", a="x = 1\n", c="y = 2\n")
    assert one != digest_of("cut", a="x = 1\ny = 2\n", b="")


def test_one_package_of_another_version_is_named_with_its_node() -> None:
    here = {"Python": "3.11.7", "torch": "2.15.0", "rlcas": "0.1.0"}
    assert doctor.judge_versions(here, {"a": here, "b": here}) == ok("the same on all 2 nodes")
    others = {"a": here, "b": {**here, "torch": "2.14.1"}, "c": {"Python": "3.11.7", "rlcas": "0.1.0"}}
    finding = doctor.judge_versions(here, others)
    assert finding.verdict == "fault" and "one image" in finding.fix
    assert finding.found == "torch 2.15.0 here, 2.14.1 on b, absent on c"


def test_the_code_of_rlcas_is_compared_beside_its_version() -> None:
    known = doctor.versions()
    assert known["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"rlcas", "torch", "ray", doctor.CODE} <= known.keys() and "absent" not in known.values()


def test_storage_that_a_node_does_not_see_is_a_fault() -> None:
    shared, runs = Path("/shared"), Path("/shared/runs")
    finding = doctor.judge_storage(shared, shared, {"a": True, "b": True})
    assert (finding.verdict, finding.found) == ("ok", "/shared is the same on all 2 nodes")
    finding = doctor.judge_storage(runs, shared, {"a": True})
    assert finding.found == "/shared is the same on all 1 nodes; /shared/runs will be made there"
    finding = doctor.judge_storage(shared, shared, {"a": True, "b": False})
    assert (finding.verdict, finding.found) == ("fault", "/shared here is not the same on b")


def test_a_probe_is_read_only_where_its_words_are(tmp_path: Path) -> None:
    with doctor._probe(tmp_path / "runs" / "first") as probe:
        assert probe.parent == tmp_path and doctor._reads(probe)
        other = tmp_path / "other"
        other.write_text("x")
        assert not doctor._reads(other)
    assert not doctor._reads(probe) and list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("data", "here", "nodes", "verdict", "found"),
    [
        (
            "npz:/d.npz",
            "1 files, 9 bytes",
            {"a": "1 files, 9 bytes"},
            "ok",
            "npz:/d.npz: 1 files, 9 bytes on all 1",
        ),
        ("npz:/d.npz", "1 files, 9 bytes", {"a": "no files"}, "warn", "1 files, 9 bytes here, no files on a"),
        ("npz:/d.npz", "no files", {"a": "no files"}, "fault", "npz:/d.npz: no files here"),
        (
            "npz:s3://b/x.npz",
            "no files",
            {"a": "no files"},
            "ok",
            "is an address: what starts a run fetches it",
        ),
        ("pathmnist", "no files", {"a": "no files"}, "ok", "pathmnist has no files on any node"),
        ("pathmnist", "no files", {"a": "1 files, 9 bytes"}, "fault", "no files here, 1 files, 9 bytes on a"),
    ],
)
def test_data_must_be_the_same_everywhere(
    data: str, here: str, nodes: dict[str, str], verdict: str, found: str
) -> None:
    finding = doctor.judge_data_on_nodes(data, here, nodes)
    assert finding.verdict == verdict and found in finding.found


def test_an_inventory_counts_files_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"12345")
    (tmp_path / "2.png").write_bytes(b"123")
    monkeypatch.setenv("RLCAS_DATA", str(tmp_path))
    assert doctor.inventory(f"folder:{tmp_path}") == "2 files, 8 bytes"
    assert doctor.inventory(f"npz:{tmp_path}/2.png") == "1 files, 3 bytes"
    assert doctor.inventory(f"csv:{tmp_path}/gone.csv") == doctor.NO_FILES
    assert doctor.inventory("phantom") == doctor.NO_FILES


def test_gpus_that_ray_assigns_must_exist() -> None:
    assert doctor.judge_gpus(1, 2).verdict == "ok"
    finding = doctor.judge_gpus(2, 1)
    assert (finding.verdict, finding.found) == ("fault", "Ray assigns 2, torch finds 1")


def test_what_is_asked_of_a_cluster_is_refused_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", "phantom"]) == 2
    assert "--out and --data need --cluster: add it, or leave them out" in capsys.readouterr().err


def test_a_node_is_a_line_with_what_it_has_and_a_line_for_each_thing_that_is_wrong() -> None:
    checks = [
        Finding("ok", "9 GB available", name="memory"),
        Finding("warn", "1 GB free", "free some", name="disk"),
    ]
    versions = {name: "1.0" for name in doctor.SHOWN}
    facts = doctor.NodeFacts(versions, checks, num_gpus=0, reads_probe=True, data="")
    whole, disk, gpus = doctor._of_node(doctor.NodeReport("f00", "beta", 4, 2), facts)
    assert whole.found == "Python 1.0, ray 1.0, torch 1.0, rlcas 1.0; 4 CPU, 2 GPU; 9 GB available"
    assert disk == Finding("warn", "disk: 1 GB free", "free some", name="beta")
    assert (gpus.verdict, gpus.found) == ("fault", "GPUs: Ray assigns 2, torch finds 0")


def test_a_node_that_does_not_answer_is_a_fault() -> None:
    (finding,) = doctor._of_node(doctor.NodeReport("f00", "beta", 4, 2), "No module named 'cluster'")
    assert (finding.verdict, finding.found) == ("fault", "No module named 'cluster'")


@dataclass(frozen=True)
class ByHand:
    """Three nodes; the last one has a file system of its own at `apart`."""

    environment: dict[str, str]
    common: Path
    apart: Path


@pytest.fixture(scope="module")
def by_hand() -> Iterator[ByHand]:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("unshare -m is not allowed here")
    environment = environment_with_token()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(new_folder())
        common, apart = folder / "common", folder / "apart"
        common.mkdir()
        apart.mkdir()
        (apart / "images.npz").write_bytes(b"images")
        address = stack.enter_context(head(folder, environment))
        words = (f"--address={address}", "--num-cpus=2")
        stack.enter_context(node("one", folder, environment, *words))
        own_root = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(apart))
        stack.enter_context(node("two", folder, environment, *words, before=own_root))
        yield ByHand({**environment, "RAY_ADDRESS": address}, common, apart)


def asked(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor of clusters as a user does."""
    command = [sys.executable, "-m", "rlcas", "doctor", "--cluster", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--data", "brestmnist"],
            "rlcas: data 'brestmnist' is unknown: use npz:PATH, folder:PATH, csv:PATH, or one",
        ),
        (["--out", __file__], f"rlcas: --out {__file__} is a file: name the folder of the runs"),
    ],
)
def test_what_no_run_would_take_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--cluster", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


@pytest.mark.medium
def test_a_cluster_that_does_not_answer_is_a_fault() -> None:
    done = asked({**os.environ, "RAY_ADDRESS": f"127.0.0.1:{free_port()}"})
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("fault  cluster: RAY_ADDRESS") and "does not answer" in done.stdout


@pytest.mark.slow
def test_nodes_started_by_hand_with_one_token_are_whole(by_hand: ByHand) -> None:
    done = asked(by_hand.environment, "--out", f"{by_hand.common}/runs", "--data", f"folder:{by_hand.common}")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("head", "one", "two"):
        assert f"({name}): Python 3." in done.stdout
    assert "versions: the same on all 3 nodes" in done.stdout
    assert f"shared storage: {by_hand.common} is the same on all 3 nodes" in done.stdout
    assert by_hand.environment["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_node_without_the_shared_folder_is_named_with_what_it_lacks(by_hand: ByHand) -> None:
    data = f"npz:{by_hand.apart}/images.npz"
    done = asked(by_hand.environment, "--out", f"{by_hand.apart}", "--data", data)
    host = socket.gethostname()
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"fault  shared storage: {by_hand.apart} here is not the same on {host} (two)\n" in done.stdout
    assert f"warn   data set: {data}: 1 files, 6 bytes here, no files on {host} (two)\n" in done.stdout
    assert "1 at fault" in done.stdout


@pytest.mark.slow
def test_a_wrong_token_is_reported_as_a_fault(by_hand: ByHand) -> None:
    done = asked({**by_hand.environment, "RAY_AUTH_TOKEN": "0" * 64}, "--out", str(by_hand.common))
    assert done.returncode == 1
    assert done.stdout.startswith("fault  cluster: RAY_ADDRESS")
    assert (
        "refuses the connection (Failed to connect" in done.stdout and "set RAY_AUTH_MODE=token" in done.stdout
    )
