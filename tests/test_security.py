"""What docs/security.md promises: no pickle from a user's file, and a Ray that other machines cannot reach."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from by_hand import RAY, head, new_folder

from cluster.runtime.connection import ensure_ray

ROOT = Path(__file__).parent.parent
PACKAGES = ("rlcas", "synth", "envs", "cluster")

UNPICKLERS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load",
    "joblib.load", "shelve.open", "marshal.load", "marshal.loads", "pandas.read_pickle", "pd.read_pickle",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader",
    "torch.jit.load", "torch.hub.load", "eval", "exec",
}  # fmt: skip
OWN_EXPORTS = {"rlcas/deploy/export.py": ["torch.jit.load"]}
"""Read back right after they were written, to compare their predictions."""
NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""Calls that must have this argument: name -> (argument, value)."""


def unsafe_calls(source: str) -> Iterator[str]:
    """Yield the calls of a module that unpickle, or lack the argument that forbids it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cloudpickle", "dill", "joblib"):
            yield f"from {node.module} import"
        if not isinstance(node, ast.Call):
            continue
        name, said = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        argument, value = NEEDED.get(name, (None, None))
        safe = isinstance(said.get(argument), ast.Constant) and said[argument].value is value
        if name in UNPICKLERS or (argument and not safe):
            yield name
        if name.endswith(".from_pretrained") and isinstance(said.get("trust_remote_code"), ast.Constant):
            yield f"{name}(trust_remote_code=)"


def test_no_module_unpickles_or_evaluates() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(modules) > 100
    found = {str(path.relative_to(ROOT)): list(unsafe_calls(path.read_text("utf-8"))) for path in modules}
    assert {path: calls for path, calls in found.items() if calls} == OWN_EXPORTS


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, 'r')",
        "pickle.load(file)",
        "from pickle import loads",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "Model.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(source: str) -> None:
    assert list(unsafe_calls(source))


def test_rays_authentication_is_never_switched_off_by_us() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    texts = {path: path.read_text("utf-8") for path in files if path.suffix in (".py", ".yaml", ".yml", ".sh")}
    off = re.compile(
        r"RAY_AUTH_MODE['\"]?\]?\s*[:=]\s*['\"]?disabled|dashboard[-_]host['\"]?\s*[:= ]\s*['\"]?0\.0\.0\.0"
    )
    assert off.search("RAY_AUTH_MODE=disabled") and off.search("dashboard-host: '0.0.0.0'")
    assert [str(path) for path, text in texts.items() if off.search(text)] == []


@pytest.mark.medium
def test_a_ray_of_our_own_listens_on_loopback_alone_without_a_dashboard_and_with_its_token(
    ray_session: None,
) -> None:
    import ray

    ensure_ray(k=1)
    worker = ray.get(ray.remote(num_cpus=0)(lambda: os.getpid()).remote())
    listening = _listening()
    assert worker in {pid for pid, _ in listening} and len(listening) > 4
    assert {address for _, address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert ray._private.worker.global_worker.node.webui_url in ("", None)
    assert os.environ["RAY_AUTH_MODE"] == "token"


START = """
import os, ray, sys
from cluster.runtime.connection import ensure_ray
ensure_ray(1, *map(int, sys.argv[1:]))
print(os.nice(0), ray.get(ray.remote(lambda: os.nice(0)).remote()), os.environ.get("RAY_worker_niceness"))
"""


@pytest.mark.medium
@pytest.mark.parametrize(
    ("stated", "words", "nicer"), [({}, [], 0), ({}, ["4"], 4), ({"RAY_worker_niceness": "6"}, ["4"], 6)]
)
def test_workers_of_a_ray_of_our_own_are_as_nice_as_asked_for(
    stated: dict[str, str], words: list[str], nicer: int
) -> None:
    """By default as nice as the command itself, in place of Ray's 15; Ray's own variable takes precedence."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_worker_niceness"}
    command = [sys.executable, "-c", START, *words]
    done = subprocess.run(
        command, env=environment | stated, capture_output=True, text=True, timeout=300, check=True
    )
    own, workers, left = done.stdout.split()[-3:]
    assert int(workers) - int(own) == nicer
    assert left == str(stated.get("RAY_worker_niceness")), "the variable is set for Ray's start alone"


JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('inside')"


@pytest.mark.slow
@pytest.mark.parametrize("with_token", [False, True])
def test_a_head_of_ray_start_asks_for_a_token_only_where_it_finds_one(with_token: bool) -> None:
    with new_folder() as folder:
        homes = {name: folder / name for name in ("own", "stranger")}
        for home in homes.values():
            home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = {**kept, "HOME": str(homes["own"])}
        if with_token:
            command = [RAY, "get-auth-token", "--generate"]
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
        with head(folder, environment) as address:
            stranger = {**environment, "HOME": str(homes["stranger"])}
            command = [sys.executable, "-c", JOIN, address]
            done = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=240)
        assert ("inside" in done.stdout) is not with_token, done.stderr


def _listening() -> set[tuple[int, str]]:
    """Return (process, address) of every TCP port that this process and those that it started listen on."""
    found = set()
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        try:
            connections = process.net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        found |= {(process.pid, found.laddr.ip) for found in connections if found.status == psutil.CONN_LISTEN}
    return found
