"""`rlcas doctor --cluster`: checks of each node, and of what must be the same on all."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.runtime.package_shadowing import OUR_PACKAGES
from rlcas.data.medmnist import local_files
from rlcas.doctor import CHECKS, examine, machine, packages
from rlcas.doctor.finding import Finding, fault, ok, warn
from rlcas.errors import UserError, last_line
from rlcas.runs.paths import PATH_PREFIXES
from rlcas.storage.remote import address_of

NODE_LIMIT_SECONDS = 600.0
NODE_CHECKS = (
    "Python",
    "dependencies",
    "gymnasium for Ray",
    "torch build",
    "GPU",
    "memory",
    "disk for temporary files",
    "shared memory",
    "data",
)
"""Checks of `rlcas doctor` that run on each node: not the slow ones, nor that of the current folder."""
SHOWN = ("Python", "ray", "torch", "rlcas")
CODE = "code of rlcas"
NO_FILES = "no files"
SAME_EVERYWHERE = "give every node the same environment: one image, or one folder on storage that all share"


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as Ray lists it."""

    node_id: str
    name: str
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What was found on a node."""

    versions: Mapping[str, str]
    findings: Sequence[Finding]
    num_gpus: int
    """GPUs that torch finds on it."""
    reads_probe: bool
    data: str
    """What it has of the data set, as `inventory` returns it."""


def examine_cluster(out: Path, data: str | None) -> Iterator[Finding]:
    """Yield findings about each node of the cluster of RAY_ADDRESS, and about what they must share.

    Args:
        out: the folder of runs, absolute; a file that is written there must be read on every node.
        data: a data set as `--data` names it, with an absolute path; None looks for none.
    """
    (connected,) = examine({"cluster": _connect})
    yield connected
    if connected.verdict == "fault":
        return
    nodes = _nodes()
    with _probe(out) as probe:
        answers = _ask(nodes, probe, data)
        here = inventory(data)
    for node in nodes:
        yield from _of_node(node, answers[node.name])
    facts = {name: answer for name, answer in answers.items() if isinstance(answer, NodeFacts)}
    yield replace(
        judge_versions(versions(), {name: of.versions for name, of in facts.items()}), name="versions"
    )
    reads = {name: of.reads_probe for name, of in facts.items()}
    yield replace(judge_storage(out, probe.parent, reads), name="shared storage")
    if data is not None:
        by_node = {name: of.data for name, of in facts.items()}
        yield replace(judge_data_on_nodes(data, here, by_node), name="data set")


def look(probe: Path, data: str | None) -> NodeFacts:
    """Return the facts of the node that this runs on."""
    findings = examine({name: CHECKS[name] for name in NODE_CHECKS})
    return NodeFacts(
        versions=versions(),
        findings=list(findings),
        num_gpus=len(machine.torch_gpus()[0]),
        reads_probe=_reads(probe),
        data=inventory(data),
    )


def versions() -> dict[str, str]:
    """Return the versions of Python, rlcas and what it requires, and a digest of the code of rlcas."""
    return {**packages.versions(), CODE: _code_digest()}


def inventory(data: str | None) -> str:
    """Return the files and bytes of a data set on this node: enough to notice that two nodes differ."""
    prefix, _, path = (data or "").partition(":")
    place = Path(path) if prefix in PATH_PREFIXES else local_files().get(prefix)
    if place is None or not place.exists():
        return NO_FILES
    sizes = [
        file.stat().st_size for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()
    ]
    return f"{len(sizes)} files, {sum(sizes)} bytes"


def judge_versions(here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> Finding:
    """Compare the versions on each node with those of this process."""
    differences = []
    for package, version in here.items():
        found = {name: of.get(package, "absent") for name, of in nodes.items()}
        elsewhere = [f"{other} on {name}" for name, other in found.items() if other != version]
        if elsewhere:
            differences.append(f"{package} {version} here, {', '.join(elsewhere)}")
    if differences:
        return fault("; ".join(differences), SAME_EVERYWHERE)
    return ok(f"the same on all {len(nodes)} nodes")


def judge_storage(out: Path, folder: Path, read_by: Mapping[str, bool]) -> Finding:
    """Judge the folder of runs by which nodes read a new file in `folder`, which is `out` or above it."""
    without = [name for name, reads in read_by.items() if not reads]
    if without:
        return fault(
            f"{folder} here is not the same on {', '.join(without)}",
            "mount one shared folder at the same path on every node, and name it with --out",
        )
    made = "" if folder == out else f"; {out} will be made there"
    return ok(f"{folder} is the same on all {len(read_by)} nodes{made}")


def judge_data_on_nodes(data: str, here: str, nodes: Mapping[str, str]) -> Finding:
    """Judge a data set by what this process and each node have of it."""
    if address_of(data.partition(":")[2]):
        return ok(f"{data} is an address: what starts a run fetches it, and no node needs it")
    if data.partition(":")[0] not in PATH_PREFIXES and {here, *nodes.values()} == {NO_FILES}:
        return ok(f"{data} has no files on any node: it is made or fetched")
    elsewhere = ", ".join(f"{found} on {name}" for name, found in nodes.items() if found != here)
    found = f"{data}: {here} here" + (f", {elsewhere}" if elsewhere else "")
    if here == NO_FILES:
        return fault(found, "start the run where the data are, or put them on storage that all nodes share")
    if elsewhere:
        return warn(
            found,
            "none is needed: a run copies them there once; put them on storage that all nodes share to spare that",
        )
    return ok(f"{data}: {here} on all {len(nodes)} nodes")


def judge_gpus(of_ray: float, of_torch: int) -> Finding:
    """Compare the GPUs that Ray assigns on a node with those that torch finds on it."""
    if of_ray > of_torch:
        return fault(
            f"Ray assigns {of_ray:g}, torch finds {of_torch}",
            "start Ray there with the right --num-gpus, or fix the driver and torch's CUDA build",
        )
    return ok(f"{of_ray:g}")


def _connect() -> Finding:
    from cluster.runtime.connection import ensure_ray  # imports torch, which a node need not have

    try:
        ensure_ray(k=1)
    except UserError as error:
        return fault(str(error), "")
    address = os.environ.get("RAY_ADDRESS")
    return ok(f"RAY_ADDRESS {address}" if address else "RAY_ADDRESS is not set: this machine alone")


def _nodes() -> list[NodeReport]:
    """Return the nodes that are alive, by name."""
    return sorted(
        (
            NodeReport(
                one["NodeID"],
                f"{one['NodeManagerHostname']} ({one['NodeName']})",
                # Ray leaves out a resource of which a node has none.
                one["Resources"].get("CPU", 0),
                one["Resources"].get("GPU", 0),
            )
            for one in ray.nodes()
            if one["Alive"]
        ),
        key=lambda node: node.name,
    )


@contextlib.contextmanager
def _probe(out: Path) -> Iterator[Path]:
    """Yield a new file in `out`, or in the nearest folder above that exists."""
    folder = next(place for place in (out, *out.parents) if place.is_dir())
    with tempfile.NamedTemporaryFile("w", prefix=".rlcas-doctor-", dir=folder) as file:
        # Its own path: a node that has another file of this name at this place is found out.
        file.write(file.name)
        file.flush()
        # Other nodes read it from the storage, not from this machine's cache.
        os.fsync(file.fileno())
        yield Path(file.name)


def _reads(probe: Path) -> bool:
    try:
        return probe.read_text() == str(probe)
    # A folder that the node lacks or may not read: either way it does not share it.
    except OSError:
        return False


def _ask(nodes: Sequence[NodeReport], probe: Path, data: str | None) -> dict[str, NodeFacts | str]:
    """Return each node's facts, or why it has none."""
    # No cores, so that busy nodes answer too.
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {}
    for node in nodes:
        # Hard: another node's answer would be taken for this one's.
        on_node = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        asked[node.name] = task.options(scheduling_strategy=on_node).remote(probe, data)
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=NODE_LIMIT_SECONDS)
    return {name: _answer(answer, answer in done) for name, answer in asked.items()}


def _answer(answer: ray.ObjectRef, done: bool) -> NodeFacts | str:
    if not done:
        return f"no answer within {NODE_LIMIT_SECONDS:g} s"
    try:
        return ray.get(answer)
    except RayError as error:
        # Ray's errors hold the worker's traceback.
        return last_line(str(error))


def _of_node(node: NodeReport, answer: NodeFacts | str) -> Iterator[Finding]:
    """Yield the line of a node, and one for each check that it does not pass."""
    if isinstance(answer, str):
        fix = "install rlcas there as on the others, and check whether the node is up"
        yield Finding("fault", answer, fix, name=node.name)
        return
    checks = {finding.name: finding for finding in answer.findings}
    shown = ", ".join(f"{package} {answer.versions[package]}" for package in SHOWN)
    found = f"{shown}; {node.num_cpus:g} CPU, {node.num_gpus:g} GPU; {checks['memory'].found}"
    yield Finding("ok", found, name=node.name)
    gpus = judge_gpus(node.num_gpus, answer.num_gpus)
    for check, finding in {**checks, "GPUs": gpus}.items():
        if finding.verdict != "ok":
            yield Finding(finding.verdict, f"{check}: {finding.found}", finding.fix, name=node.name)


def _code_digest() -> str:
    """Return a digest of the sources of rlcas: two checkouts may have the same version."""
    digest = hashlib.sha256()
    for package in OUR_PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        add_sources(digest, Path(spec.origin).parent)
    return digest.hexdigest()[:12]


def add_sources(digest: hashlib._Hash, package: Path) -> None:
    """Add each module's name and code: a module that was renamed, or cut elsewhere, is other code."""
    named = {source.relative_to(package.parent).as_posix(): source for source in package.rglob("*.py")}
    # Sorted, as the order of a folder's files differs between file systems.
    for name, source in sorted(named.items()):
        digest.update(hashlib.sha256(name.encode()).digest())
        digest.update(hashlib.sha256(source.read_bytes()).digest())
