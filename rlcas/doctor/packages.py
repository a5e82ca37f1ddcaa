"""Checks of Python and of the installed packages; the slow ones are only imported in a process of their own."""

from __future__ import annotations

import ast
import importlib.util
import platform
import re
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rlcas.doctor.finding import Finding, fault, ok, warn
from rlcas.doctor.probe import run_python

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

IMPORT_LIMIT_SECONDS = 300.0
RAY_LIMIT_SECONDS = 300.0
SLOW_TO_IMPORT = ("torch", "torchvision", "timm", "ray", "diffusers")
REINSTALL_TOGETHER = (
    "torch and torchvision must come from one index: pip uninstall -y torch torchvision, then both in one "
    "command, pip install torch torchvision (with --index-url for both where CPU builds are wanted)"
)
RAY_TRIAL = """
import os
import ray
from cluster.runtime.connection import ensure_ray
ensure_ray(k=1)
print(os.nice(0), ray.get(ray.remote(lambda: os.nice(0)).remote()))
ray.shutdown()
"""
"""Prints the niceness of the process and that of its workers."""


def python() -> Finding:
    """Check the interpreter's version."""
    return judge_python(platform.python_version(), metadata.metadata("rlcas")["Requires-Python"])


def judge_python(version: str, requires: str) -> Finding:
    """Judge the interpreter's version by the package's Requires-Python."""
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(requires).contains(version, prereleases=True):
        return ok(version)
    return fault(f"{version} (required: {requires})", "make an environment with a newer Python")


def dependencies() -> Finding:
    """Check every package that rlcas requires."""
    return judge_requirements(metadata.requires("rlcas") or [], _installed())


def versions() -> dict[str, str]:
    """Return the versions of Python, rlcas and every package that rlcas requires, by name."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    installed = _installed()
    names = [line.name for line in map(Requirement, metadata.requires("rlcas") or []) if line.marker is None]
    found = {name: installed.get(canonicalize_name(name), "absent") for name in ["rlcas", *names]}
    return {"Python": platform.python_version(), **found}


def gymnasium() -> Finding:
    """Check Gymnasium's version against RLlib's pin."""
    # Ray's own pin, read from its metadata: it is an exact version and changes with Ray.
    pins = [line for line in metadata.requires("ray") or [] if line.startswith("gymnasium")]
    return judge_requirements(pins, _installed(), extra="rllib")


def judge_requirements(requires: Sequence[str], versions: Mapping[str, str], extra: str = "") -> Finding:
    """Judge the installed versions by Requires-Dist lines.

    Args:
        requires: PEP 508 lines; those whose marker does not hold on this machine are left out.
        versions: package in lower case with hyphens -> its installed version.
        extra: an extra whose lines count too.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [Requirement(line) for line in requires]
    wanted = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
    found = {line.name: versions.get(canonicalize_name(line.name)) for line in wanted}
    unmet = [line for line in wanted if not _admits(line.specifier, found[line.name])]
    if not unmet:
        return ok(", ".join(f"{name} {version}" for name, version in found.items()))
    faults = [
        f"{line.name} {found[line.name] or 'is absent'} (required: {line.specifier or 'any'})" for line in unmet
    ]
    to_install = [f'"{_without_marker(line)}"' for line in unmet]
    return fault(", ".join(faults), f"pip install {' '.join(to_install)}")


def torch_build() -> Finding:
    """Check that torch and torchvision are builds of one kind and made for each other."""
    torch, torchvision = _version_file("torch"), _version_file("torchvision")
    requires = metadata.requires("torchvision") or []
    return judge_torch_build(
        str(torch["__version__"]), torch["cuda"], str(torchvision["__version__"]), requires
    )


def judge_torch_build(
    torch_version: str, torch_cuda: str | None, torchvision_version: str, torchvision_requires: Sequence[str]
) -> Finding:
    """Judge torch and torchvision together: `2.15.0+cpu` with a CUDA build: `torchvision::nms does not exist`.

    Args:
        torch_version: with its local suffix (`+cpu`, `+cu132`) if it has one.
        torch_cuda: `torch.version.cuda`; None in a build without CUDA.
        torchvision_version: with its local suffix if it has one; without one its build is not known.
        torchvision_requires: torchvision's Requires-Dist lines.
    """
    torch_local, torchvision_local = (_local(version) for version in (torch_version, torchvision_version))
    # PyPI's builds have no suffix: their kind follows from the CUDA that they are built with.
    torch_kind = torch_local or (f"cu{torch_cuda.replace('.', '')}" if torch_cuda else "cpu")
    # Without a suffix, torchvision is PyPI's: a CUDA build where torch is one, and beside torch +cpu a fault.
    torchvision_kind = torchvision_local or ("unknown" if torch_local == "cpu" else torch_kind)
    pair = f"torch {torch_version} (CUDA: {torch_cuda or 'none'}) beside torchvision {torchvision_version}"
    if torch_kind != torchvision_kind:
        return fault(f"{pair}: builds of different kinds", REINSTALL_TOGETHER)
    asked = [line for line in torchvision_requires if re.match(r"torch\b", line)]
    if judge_requirements(asked, {"torch": torch_version}).verdict == "fault":
        return fault(f"{pair}, which requires {', '.join(asked)}", REINSTALL_TOGETHER)
    return ok(pair)


def torchvision_import() -> Finding:
    """Import torchvision's operators, which fails if its build does not match torch's."""
    return _trial_import("import torchvision.ops", REINSTALL_TOGETHER)


def diffusers_import() -> Finding:
    """Import the denoiser: `import diffusers` alone succeeds even if this fails, because it imports lazily."""
    return _trial_import(
        "from diffusers import UNet2DModel", "fix torchvision if it has a fault; else install rlcas again"
    )


def byte_code() -> Finding:
    """Check that the slow packages are compiled to byte code, because every worker imports them again."""
    origins = {name: spec.origin for name in SLOW_TO_IMPORT if (spec := importlib.util.find_spec(name))}
    without = [
        name
        for name, origin in origins.items()
        if origin and not Path(importlib.util.cache_from_source(origin)).is_file()
    ]
    return judge_byte_code(without, sys.dont_write_bytecode)


def judge_byte_code(without: Sequence[str], dont_write: bool) -> Finding:
    """Judge the packages `without` byte code, which Python writes unless PYTHONDONTWRITEBYTECODE is set."""
    if not without:
        return ok("the packages are compiled")
    missing = f"{', '.join(without)} without byte code"
    if not dont_write:
        return ok(f"{missing}: the first import writes it")
    return warn(
        f"{missing}, and PYTHONDONTWRITEBYTECODE is set: every worker starts 2 to 3 times slower",
        f"once: PYTHONDONTWRITEBYTECODE= {sys.executable} -m compileall -q {sysconfig.get_path('purelib')}",
    )


def ray_start() -> Finding:
    """Start Ray as a run does, run one task and shut it down."""
    started = time.monotonic()
    try:
        shown = run_python(RAY_TRIAL, RAY_LIMIT_SECONDS)
    except RuntimeError as error:
        return fault(
            f"Ray does not start: {error}",
            "look at the memory, disk and /dev/shm above, stop other Ray instances (ray stop), unset RAY_ADDRESS",
        )
    seconds = time.monotonic() - started
    own, workers = map(int, shown.split()[-2:])
    return judge_niceness(own, workers, f"started, ran a task and ended in {seconds:.0f} s")


def judge_niceness(own: int, workers: int, found: str) -> Finding:
    """Judge the niceness of Ray's workers, which get little of a busy machine where they are nicer than others.

    Args:
        own: niceness of the process that starts Ray.
        workers: that of its workers.
        found: what else was found.
    """
    found = f"{found}; workers at niceness {workers}"
    if workers > own:
        fix = "unset RAY_worker_niceness: nicer workers give way to any other work"
        return warn(f"{found}, {workers - own} above this process's", fix)
    return ok(found)


def _trial_import(statement: str, fix: str) -> Finding:
    try:
        run_python(statement, IMPORT_LIMIT_SECONDS)
    except RuntimeError as error:
        return fault(f"{statement} fails: {error}", fix)
    return ok(f"{statement} works")


def _installed() -> dict[str, str]:
    from packaging.utils import canonicalize_name

    return {canonicalize_name(found.name): found.version for found in metadata.distributions()}


def _admits(specifier: SpecifierSet, version: str | None) -> bool:
    # packaging refuses a pre-release or nightly build of a fitting version unless it is asked to admit them.
    return version is not None and specifier.contains(version, prereleases=True)


def _without_marker(line: Requirement) -> str:
    return str(line).partition(";")[0].strip()


def _version_file(package: str) -> dict[str, str | None]:
    """Return name -> value from the package's version.py, read without importing the package.

    Its version has the local suffix (`+cpu`), which the metadata of some builds lack.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    settings = re.findall(r"^(\w+)(?:: [^=]+)? = ('[^']*'|None)$", text, re.MULTILINE)
    return {name: ast.literal_eval(value) for name, value in settings}


def _local(version: str) -> str:
    return version.partition("+")[2]
