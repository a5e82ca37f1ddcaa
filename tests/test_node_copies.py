"""Folders of the driver on other nodes: by path where they are reached, else one verified copy a node."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.comparison import cell
from cluster.runtime.node_folder import NodeFolder, check_reached
from cluster.sweeps import trial
from rlcas.errors import UserError
from synth.manifest import pool_digests
from synth.pool import PoolWriter, mark_copies


@pytest.fixture(scope="module")
def far_node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/far_node.py prints."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("this machine allows no mount namespace, so that no node can have a disk of its own")
    script = Path(__file__).with_name("far_node.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("work")], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return {key: value for line in done.stdout.splitlines()[-2:] for key, value in json.loads(line).items()}


@pytest.mark.slow
def test_a_node_without_the_folders_opens_the_same_bytes(far_node: dict[str, Any]) -> None:
    assert far_node["here"]["by_path"] and not any(node["by_path"] for node in far_node["far"])
    assert {node["digest"] for node in far_node["far"]} == {far_node["here"]["digest"]}


@pytest.mark.slow
def test_actors_of_a_node_share_one_copy(far_node: dict[str, Any]) -> None:
    assert far_node["copies"] == 2, "the images and the pool"
    assert len({node["inode"] for node in far_node["far"]}) == 1


@pytest.mark.slow
def test_a_copy_that_was_altered_is_fetched_again(far_node: dict[str, Any]) -> None:
    assert far_node["fetched_again"] and far_node["restored"]["digest"] == far_node["here"]["digest"]


@pytest.mark.slow
def test_episodes_on_a_node_without_the_folders_have_the_same_bits(far_node: dict[str, Any]) -> None:
    assert far_node["same_bits"]


@pytest.mark.slow
def test_a_node_that_does_not_reach_what_all_write_is_named(far_node: dict[str, Any]) -> None:
    assert (
        "does not reach" in far_node["unreached"]
        and "storage that they mount at the same path" in far_node["unreached"]
    )


def test_with_one_process_nothing_is_hashed_or_copied(tmp_path: Path) -> None:
    (tmp_path / "images.npy").write_bytes(b"x")
    assert NodeFolder.of(tmp_path, None).here() == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_a_relative_path_never_reaches_ray() -> None:
    for path, cache in ((Path("runs/a"), None), (Path("/runs/a"), Path("cache"))):
        with pytest.raises(AssertionError, match=r"would be another folder elsewhere"):
            NodeFolder.of(path, cache)


def test_a_folder_that_a_node_does_not_reach_is_named_with_the_node(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"node {socket.gethostname()} does not reach .*/run, which is written by all"
    ):
        check_reached(tmp_path / "run", "config.yaml")
    (tmp_path / "config.yaml").touch()
    check_reached(tmp_path, "config.yaml")


def test_a_cell_or_trial_on_a_node_without_its_folder_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not reach"):
        cell.train_cell(tmp_path / "compare", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="does not reach"):
        trial.SweepTrial({"sweep": str(tmp_path / "sweep"), "metric": "f1", "trial": {"settings": {}}})
    assert list(tmp_path.iterdir()) == []


def test_a_pool_is_identified_by_its_manifest_shards_and_marks(tmp_path: Path) -> None:
    writer = PoolWriter(tmp_path, class_names=["a"], image_shape_CHW=(1, 4, 4), shard_images=2, source={})
    for class_id, span in writer.missing([3]):
        writer.write(class_id, span, np.zeros((len(span), 1, 4, 4), np.uint8))
    writer.commit([3])
    plain = pool_digests(tmp_path)
    assert set(plain) == {"manifest.json", "class-000/shard-000.npy", "class-000/shard-001.npy"}
    mark_copies(tmp_path, [np.array([1])], {})
    assert pool_digests(tmp_path).keys() - plain.keys() == {"copies.json"}
