"""A cluster whose second node has an empty disk where the run lies; prints a line of JSON on copies, one on bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
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

from cluster.runtime.node_folder import CHUNK_BYTES, NodeFolder, check_reached
from rlcas.data.prepared import open_prepared, prepare
from rlcas.runs.folder import RunFolder
from rlcas.storage.digests import NOTE_FILE
from rlcas.types import ImageSet, TrainingData
from synth.manifest import pool_digests
from synth.pool import PoolWriter, SyntheticPool, mark_copies

RAY = Path(sys.executable).with_name("ray")
FAR = {"far": 0.1}


def main(work: Path) -> None:
    run = made_run(work)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        with far_node(cluster.address, work):
            os.environ["RAY_ADDRESS"] = cluster.address
            ray.init(log_to_driver=False)
            wait_for_node()
            print(json.dumps(facts_of(work, run)), flush=True)
            pool = work / "run/stored"
            bits = [trained(run, pool, runner) for runner in ("actors", "in_process")]
            print(json.dumps({"same_bits": bits[0] == bits[1]}))
    finally:
        ray.shutdown()
        cluster.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def made_run(work: Path) -> RunFolder:
    """Write a run's images, and a pool elsewhere whose marks are the run's own."""
    rng = np.random.default_rng(0)
    run, pool = RunFolder(work / "run"), work / "run/stored"
    train, val = (drawn(count, rng) for count in (41, 24))
    data = TrainingData(name="tiny", class_names=("a", "b", "c"), train=train, val=val)
    prepare(data, run.prepared)
    (run.prepared / "more.bin").write_bytes(rng.bytes(3 * CHUNK_BYTES + 7))  # comes in four pieces
    sizes = [40, 30, 20]
    writer = PoolWriter(
        pool, class_names=data.class_names, image_shape_CHW=(1, 16, 16), shard_images=16, source={}
    )
    for class_id, span in writer.missing(sizes):
        writer.write(class_id, span, rng.integers(0, 256, (len(span), 1, 16, 16), dtype=np.uint8))
    writer.commit(sizes)
    mark_copies(pool, [np.arange(2), np.arange(0), np.arange(3)], {}, marks_folder=run.pool)
    return run


def drawn(count: int, rng: np.random.Generator) -> ImageSet:
    """Return images that are the brighter, the higher their class."""
    labels_N = np.arange(count) % 3
    images_NCHW = rng.integers(0, 120, (count, 1, 16, 16)) + 60 * labels_N[:, None, None, None]
    return ImageSet(images_NCHW=images_NCHW.astype(np.uint8), labels_N=labels_N)


@contextlib.contextmanager
def far_node(address: str, work: Path) -> Iterator[None]:
    """Start a node that sees an empty folder where the run is, and keeps its copies in a place of its own."""
    start = f"{RAY} start --address={address} --num-cpus=4 --block --disable-usage-stats"
    port = f"--dashboard-agent-listen-port={free_port()}"
    resources = f"""--resources='{{"far": 1}}' --object-store-memory=100000000 {port}"""
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
    ends = time.monotonic() + 600
    while "far" not in ray.cluster_resources():
        assert time.monotonic() < ends, "the far node did not come"
        threading.Event().wait(0.2)


def facts_of(work: Path, run: RunFolder) -> dict[str, Any]:
    """Return what both nodes see, how many copies there are, and what becomes of one that is altered."""
    pool, prepared = NodeFolder.of(work / "run/stored", None, pool_digests), NodeFolder.of(run.prepared, None)
    on_far = ray.remote(num_cpus=1, resources=FAR)(look)
    both = ray.get([on_far.remote(prepared, pool) for _ in range(2)])
    (shard,) = work.glob("far/*/files/class-000/shard-001.npy")
    inode = shard.stat().st_ino
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    restored = ray.get(on_far.remote(prepared, pool))
    return {
        "here": look(prepared, pool),
        "far": both,
        "copies": len(list(work.glob("far/*/files"))),
        "fetched_again": shard.read_bytes() == content and shard.stat().st_ino != inode,
        "restored": restored,
        "hashed_here": (run.prepared / NOTE_FILE).exists(),
        "unreached": ray.get(ray.remote(resources=FAR)(reached).remote(run.path)),
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


def trained(run: RunFolder, pool: Path, runner: str) -> bytes:
    """Return the weights after two epochs; the actors have no place but the far node."""
    from tiny import tiny_config

    from cluster import RLCASConfig
    from cluster.episodes.trainer_factory import trainer_factory

    config = tiny_config(sampler={"epochs": 2, "k": 3})
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
