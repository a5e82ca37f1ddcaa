"""Several nodes, really: machines of a network of their own, and the head's loss."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import by_hand
import held_run
import namespaces
import pytest
import small_run
from ray.cluster_utils import Cluster
from test_chaos import same_run
from test_run import rlcas
from test_synth_workers import weights

pytestmark = pytest.mark.slow
SPREAD_RUN = Path(__file__).with_name("spread_run.py")

Machines = tuple[list[str], dict[str, str], tuple[str, ...]]


@pytest.fixture(scope="module")
def three_machines() -> Iterator[Machines]:
    """Start a head and two nodes, each on a machine of its own with one core, so that no two workers are on the same.

    Yields their addresses, the environment of a driver, and the words that run it on the head.
    """
    environment = by_hand.environment_with_token()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(by_hand.new_folder())
        try:
            (ip, on_head), *others = stack.enter_context(namespaces.machines(3))
        except PermissionError as error:
            pytest.skip(f"network namespaces are not allowed here: {error}")
        head = by_hand.head(folder / "head", environment, "--num-cpus=1", before=on_head, ip=ip)
        address = stack.enter_context(head)
        for i, (node_ip, before) in enumerate(others):
            words = (f"--address={address}", "--num-cpus=1")
            name = f"node-{i}"
            stack.enter_context(
                by_hand.node(name, folder / name, environment, *words, before=before, ip=node_ip)
            )
        yield [ip, *(ip for ip, _ in others)], {**environment, "RAY_ADDRESS": address}, on_head


def test_episodes_on_three_machines_of_a_network_have_the_bits_of_one_process(three_machines: Machines) -> None:
    addresses, environment, on_head = three_machines
    done = subprocess.run(
        [*on_head, sys.executable, SPREAD_RUN], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert sorted(facts["places"]) == sorted(addresses)
    assert facts["same_bits"]


def test_both_phases_on_three_machines_make_the_files_of_one(three_machines: Machines, tmp_path: Path) -> None:
    _, environment, on_head = three_machines
    small_run.write_npz(tmp_path / "shapes.npz")
    workers = {"cluster__synth_workers": 2, "cluster__sampling_workers": 2, "cluster__threads_per_episode": 1}
    words = [sys.executable, "-m", "rlcas", "run", "--data", "npz:shapes.npz", *small_run.flags(**workers)]
    for before, environ, out, more in (
        (on_head, environment, "spread", ()),
        ((), None, "alone", (*small_run.IN_PROCESS, "--cluster.sampling_workers", "1")),
    ):
        done = subprocess.run(
            [*before, *words, *more, "--out", out],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    assert weights(tmp_path / "spread") == weights(tmp_path / "alone")
    assert same_run(tmp_path / "spread", tmp_path / "alone")


def own_address() -> str:
    """Return the address by which this machine would leave for another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as leaving:
        try:
            leaving.connect(("192.0.2.1", 9))
        except OSError:
            return by_hand.LOOPBACK
        return str(leaving.getsockname()[0])


@contextlib.contextmanager
def cluster_of_two() -> Iterator[Cluster]:
    """Start a head without cores, and a node where the episodes run.

    Both have this machine's own address: where another test's Ray is on loopback, Ray would take that here too, and
    drivers of other processes would not find it.
    """
    place = {"node_ip_address": own_address()}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **place})
    try:
        cluster.add_node(num_cpus=4, **place)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_lost_head_ends_the_run_in_one_line_and_it_resumes_on_a_new_cluster(
    held_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch under way does not end by itself: who waits for it waits in vain."""
    with (
        cluster_of_two() as cluster,
        held_run.started(held_home, *held_run.words("beheaded"), RAY_ADDRESS=cluster.address) as process,
    ):
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        _, error = process.communicate()
        assert (held_home / held_run.HOLD).exists()
    assert process.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith("rlcas: Ray's head at ") and "Traceback" not in error
    assert f"is lost: `rlcas resume {held_home / 'beheaded'}` continues from the last checkpoint" in last
    held_run.release(held_home)
    with cluster_of_two() as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        done = rlcas("resume", "beheaded", cwd=held_home)
    assert done.returncode == 0, done.stderr
    assert same_run(held_home / "beheaded", held_home / "undisturbed")
