"""A cluster whose second node has an empty disk where the run lies; prints what came of it as JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from tiny import tiny_config, tiny_data

from cluster.node_copies import NodeFolder, check_reached
from cluster.node_trainer import trainer_factory
from rlcas.config import RunConfig
from rlcas.contents import NOTE_FILE
from rlcas.data.prepared import open_prepared, prepare
from rlcas.rundir import RunFolder
from synth.manifest import pool_digests
from synth.pool import PoolWriter, SyntheticPool, mark_copies

RAY = Path(sys.executable).with_name("ray")
FAR = {"far": 0.1}


def main(work: Path) -> None:
    run, config = made_run(work)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        with far_node(cluster.address, work):
            os.environ["RAY_ADDRESS"] = cluster.address
            ray.init(log_to_driver=False)
            print(json.dumps(told(work, run, config)))
    finally:
        ray.shutdown()
        cluster.shutdown()


def made_run(work: Path) -> tuple[RunFolder, RunConfig]:
    """Write a run's images, and a pool elsewhere whose marks are the run's own."""
    data, rng = tiny_data(), np.random.default_rng(0)
    run, pool = RunFolder(work / "run"), work / "run/stored"
    prepare(data, run.prepared)
    sizes = [40, 30, 20]
    writer = PoolWriter(
        pool, class_names=data.class_names, image_shape_CHW=(1, 16, 16), shard_images=16, source={}
    )
    for class_id, span in writer.missing(sizes):
        writer.write(class_id, span, rng.integers(0, 256, (len(span), 1, 16, 16), dtype=np.uint8))
    writer.commit(sizes)
    mark_copies(pool, [np.arange(2), np.arange(0), np.arange(3)], {}, marks_folder=run.pool)
    return run, tiny_config(sampler={"epochs": 2, "k": 3})


@contextlib.contextmanager
def far_node(address: str, work: Path) -> Iterator[None]:
    """Start a node that sees an empty folder where the run is, and keeps its copies in a place of its own."""
    start = f"{RAY} start --address={address} --num-cpus=4 --block --disable-usage-stats"
    resources = """--resources='{"far": 1}' --dashboard-agent-listen-port=0 --object-store-memory=100000000"""
    process = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs none {work / 'run'} && exec {start} {resources}"],
        env={**os.environ, "RLCAS_CACHE": str(work / "far")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def wait_for_node() -> None:
    ends = time.monotonic() + 120
    while "far" not in ray.cluster_resources():
        assert time.monotonic() < ends, "the far node did not come"
        threading.Event().wait(0.2)


def told(work: Path, run: RunFolder, config: RunConfig) -> dict[str, Any]:
    wait_for_node()
    pool, prepared = NodeFolder.of(work / "run/stored", None, pool_digests), NodeFolder.of(run.prepared, None)
    on_far = ray.remote(num_cpus=1, resources=FAR)(look)
    both = ray.get([on_far.remote(prepared, pool) for _ in range(2)])
    (shard,) = work.glob("far/*/files/class-000/shard-001.npy")
    inode = shard.stat().st_ino
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    mended = ray.get(on_far.remote(prepared, pool))
    return {
        "here": look(prepared, pool),
        "far": both,
        "copies": len(list(work.glob("far/*/files"))),
        "fetched_again": shard.read_bytes() == content and shard.stat().st_ino != inode,
        "mended": mended,
        "hashed_here": (run.prepared / NOTE_FILE).exists(),
        "unreached": ray.get(ray.remote(resources=FAR)(reached).remote(run.path)),
        "same_bits": trained(run, config, pool.path, "actors") == trained(run, config, pool.path, "in_process"),
    }


def look(prepared: NodeFolder, pool: NodeFolder) -> dict[str, Any]:
    """Return what a node sees of the two folders."""
    data, images = open_prepared(prepared.here()), SyntheticPool(pool.here())
    arrays = [
        data.train.images_NCHW,
        data.val.images_NCHW,
        *(images.images(c, np.arange(20)) for c in range(3)),
    ]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    return {"digest": digest, "by_path": prepared.path.exists(), "inode": prepared.here().stat().st_ino}


def reached(folder: Path) -> str:
    try:
        check_reached(folder, "prepared/data.json")
    except ValueError as error:
        return str(error)
    return "reached"


def trained(run: RunFolder, config: RunConfig, pool: Path, runner: str) -> bytes:
    """Return the weights after two epochs; the actors have no place but the far node."""
    from cluster import RLCASConfig

    algorithm = (
        RLCASConfig()
        .training(**dict(config.sampler))
        .episodes(
            trainer_factory=trainer_factory(run, config, pool),
            num_classes=3,
            episode_runner=runner,
            threads_per_episode=1,
        )
        .debugging(seed=5, log_level="ERROR")
        .build_algo()
    )
    for _ in range(2):
        algorithm.train()
    weights = algorithm.incumbent.arrays["float32"].tobytes()
    algorithm.stop()
    return weights


if __name__ == "__main__":
    main(Path(sys.argv[1]))
