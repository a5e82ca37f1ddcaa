"""The documentation is correct: marked blocks are executed or checked, and the names in it exist."""

from __future__ import annotations

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_files
import doc_commands
import pytest
import yaml
from doc_commands import ELLIPSIS, REPOSITORY_FILE, check_script
from doc_pages import CODE, INDEX, MARKS, PAGES, PLAIN, ROOT, Block, Page, marked
from saved_run import save_run
from test_data_folder import dicom

from rlcas import settings
from rlcas.cli import ALL_COMMANDS
from rlcas.config import FileConfig
from rlcas.data import load
from rlcas.errors import UserError

SETTINGS = {flag.key for flag in settings.flags(FileConfig)}
GROUPS = {key[:end] for key in SETTINGS for end, letter in enumerate(key) if letter == "."}
OF_OTHERS = ("apiVersion", "cluster_name")
"""Keys that distinguish a Kubernetes manifest or a cluster of `ray up` from our settings."""
FILE_TYPES = "csv|html|json|md|npz|png|py|yaml"
DOTTED = re.compile(rf"^[a-z]+(?:\.(?!(?:{FILE_TYPES})\b)\w+)+$")
PACKAGES = {"envs", "rlcas", *GROUPS}

each_page = pytest.mark.parametrize("page", PAGES, ids=str)


def each(*blocks: Block) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks, ids=str)


@each_page
def test_every_block_is_marked(page: Page) -> None:
    assert "\n~~~" not in f"\n{page.text}", f"{page}: fence blocks by backticks, which are what is read here"
    for block in page.blocks:
        where = f"{block} ```{block.info}"
        if block.language in CODE:
            assert block.mark in MARKS, f"{where}: write `{block.language} run` or `{block.language} validated`"
        else:
            assert block.info in PLAIN, f"{where}: write text, json, or one of {', '.join(CODE)} with a mark"


@each(*marked("validated", "sh", "bash"))
def test_shell_is_known_to_the_programs_that_it_calls(block: Block) -> None:
    check_script(block.text)


@each(*marked("validated", "console"))
def test_commands_of_a_session_are_known_to_the_programs_that_it_calls(block: Block) -> None:
    check_script(doc_commands.typed_in(block.text))


@each(*marked("validated", "yaml"))
def test_yaml_holds_settings_that_exist_and_fit(block: Block) -> None:
    check_yaml(block.text)


@each(*marked("validated", "python"))
def test_python_compiles_and_what_it_imports_and_names_of_it_exists(block: Block) -> None:
    check_python(block.text)


@each_page
def test_commands_in_running_text_are_known(page: Page) -> None:
    for span in page.spans:
        if span.startswith("rlcas "):
            doc_commands.check_mention(span)
        elif re.match(r"python \w+/|make |pip ", span) and "NAME" not in span:
            check_script(span)


@each_page
def test_names_in_running_text_exist(page: Page) -> None:
    for span in page.spans:
        word = span.partition(" ")[0]
        if word.startswith("--") and "." in word and ELLIPSIS not in word:
            assert word.partition("=")[0].removeprefix("--") in SETTINGS, f"{page}: {span}"
        elif REPOSITORY_FILE.match(word):
            assert (ROOT / word).exists(), f"{page}: {span}"
        elif DOTTED.match(word) and word.partition(".")[0] in PACKAGES and word not in SETTINGS | GROUPS:
            assert resolved(word) is not None, f"{page}: {span}"


@each_page
def test_links_have_targets(page: Page) -> None:
    for target in page.links:
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            file = (page.path.parent / path).resolve() if path else page.path
            assert file.exists(), f"{page}: {target}"
            assert not anchor or anchor in Page(file).anchors, f"{page}: {target}"


def test_the_readme_names_every_command_and_links_the_index() -> None:
    readme, *_ = PAGES
    assert [name for name in ALL_COMMANDS if not re.search(rf"\b{name}\b", readme.text)] == []
    assert "docs/README.md" in readme.links


def test_the_index_links_every_page() -> None:
    docs = INDEX.path.parent
    pages = {page.path for page in PAGES if page.path.is_relative_to(docs)} - {INDEX.path}
    linked = {(docs / target).resolve() for target in INDEX.links}
    assert {path.relative_to(docs).as_posix() for path in pages - linked} == set()
    assert (docs / "results" / "compare.md") in pages


def test_lines_of_prose_have_at_most_120_columns() -> None:
    long = [
        f"{page}: {line}"
        for page in PAGES
        for line in page.prose.splitlines()
        if len(line) > 120 and not line.startswith("|")
    ]
    assert long == []


def test_the_settings_reference_is_the_output_of_its_generator() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "settings.py"))["reference"]()
    committed = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == reference, "python docs/settings.py regenerates it"
    assert [key for key in SETTINGS if f"| `{key}` |" not in reference] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("rlcas rnu --data phantom", "rlcas rnu --data phantom: no such command"),
        ("rlcas run --sampler.kk 3", "unknown setting sampler.kk: did you mean sampler.k?"),
        ("rlcas run --sampler.k 0", "sampler.k is '0'"),
        ("rlcas run --sampler.reward nope", "sampler.reward 'nope' is unknown"),
        ("rlcas run --data nosuchset", "data nosuchset"),
        ("rlcas run --cluster.synth_workers 3", "batch_size 32 cannot be shared by 3 workers"),
        ("rlcas predict RUN", "the following arguments are required: IMAGES"),
        ("cd rlcas && rlcas sweep --over sampler.k=3", "sweep.over sampler.k=3 has one value"),
        ("RAY_ADDRESS=auto rlcas compare --methods nope", "compare.methods 'nope' is unknown"),
        ("rlcas run \\\n --sampler.kk 3 > log", "unknown setting sampler.kk"),
        ("python benchmarks/gone.py", "benchmarks/gone.py is not in the repository"),
        ("python benchmarks/agents.py --gone 3", "benchmarks/agents.py has no --gone"),
        ("torchrun --nproc-per-node 2 -m rlcas synth rain", "rlcas synth rain: no such command"),
        ("make gone", "make gone: targets are demo, test"),
        ('pip install -e ".[gone]"', "gone: extras are dicom"),
        ("sh gone.sh", "gone.sh is not in the repository"),
        ("kubectl apply -f cluster/launch/gone.yaml", "cluster/launch/gone.yaml is not in the repository"),
        ("ray gone", "ray has no gone"),
        ("ray start --head --prot 1", "ray start: No such option"),
        ("ray job submit --no-wait -- rlcas rnu", "rlcas rnu: no such command"),
        ("ssh worker 'cd rlcas && ray start --adress=head:6379'", "ray start: No such option"),
        ("frobnicate", "frobnicate: tests/doc_commands.py does not know how to check it"),
        ("for x in 1 2; do rlcas rnu; done", "rlcas rnu: no such command"),
        ("cd (", "syntax error"),
    ],
)
def test_a_wrong_command_in_the_docs_is_found(wrong: str, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        check_script(wrong)


@pytest.mark.parametrize(
    ("check", "text", "said"),
    [
        (test_every_block_is_marked, "```sh\nls\n```\n", "write `sh run` or `sh validated`"),
        (test_every_block_is_marked, "~~~sh\nls\n~~~\n", "fence blocks by backticks"),
        (test_every_block_is_marked, "1. a\n\n   ```\n   ls\n   ```\n", "write text, json, or"),
        (test_commands_in_running_text_are_known, "Say `rlcas rnu RUN`.", "no such command"),
        (test_commands_in_running_text_are_known, "`rlcas\nresume --kk`", "has no --kk"),
        (test_names_in_running_text_exist, "`--sampler.kk 3`", "sampler.kk"),
        (test_names_in_running_text_exist, "| `sampler.kk` |", "sampler.kk"),
        (test_names_in_running_text_exist, "`rlcas.losses.GONE`", "losses.GONE"),
        (test_names_in_running_text_exist, "`cluster/gone.py`", "cluster/gone.py"),
        (test_links_have_targets, "[a](gone.md)", "gone.md"),
        (test_links_have_targets, "# Here\n[a](#there)", "#there"),
    ],
)
def test_a_wrong_page_is_found(check: Callable[[Page], None], text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError, match=re.escape(said)):
        check(Page(tmp_path / "page.md"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("sampler: {kk: 3}", "unknown setting sampler.kk"),
        ("sampler.k: 0", "sampler.k is 0"),
        ("classifier: {loss: nope}", "classifier.loss 'nope' is unknown"),
    ],
)
def test_wrong_yaml_in_the_docs_is_found(wrong: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        check_yaml(wrong)


@pytest.mark.parametrize(
    "wrong", ["import rlcas\nrlcas.runn(1)", "from cluster import Gone", "import nosuchmodule", "x ="]
)
def test_wrong_python_in_the_docs_is_found(wrong: str) -> None:
    with pytest.raises((AttributeError, ImportError, SyntaxError)):
        check_python(wrong)


@pytest.mark.medium
@pytest.mark.timeout(1500)  # all commands of the tutorial, most with a Ray of their own
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.mark == "run" for b in page.blocks)], ids=str)
def test_blocks_marked_run_are_executed_in_their_order(page: Page, tmp_path: Path) -> None:
    PREPARED.get(str(page), lambda folder: None)(tmp_path)
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}
    for block in (block for block in page.blocks if block.mark == "run"):
        shell = ["bash", "-euo", "pipefail"] if block.language in ("sh", "bash") else [sys.executable]
        words = [*shell, "-c", block.text]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def check_yaml(text: str) -> None:
    """Check that YAML holds settings that exist, are valid and name existing things; manifests are only parsed."""
    content = yaml.safe_load(text)
    if not set(content) & set(OF_OTHERS):
        doc_commands.check_settings(content)


def check_python(source: str) -> None:
    """Check that code compiles, and that the modules and attributes in it exist."""
    tree = ast.parse(source)
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            known |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                known[alias.asname or alias.name.partition(".")[0]] = module
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            getattr(known[node.value.id], node.attr)


def resolved(dotted: str) -> Any:
    """Return the module, class, function or attribute of that name, or None."""
    module, _, name = dotted.rpartition(".")
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        return getattr(resolved(module), name, None) if module else None


def prepare_predictions(folder: Path) -> None:
    """A run's folder RUN, and images in every form that the page names."""
    config = data_files.config(data_files.write_npz(folder))
    save_run(folder / "RUN", load(config), config)
    for name in ("images/1.png", "a.png"):
        data_files.write_image(folder / name, data_files.gray(0))
    dicom(folder / "b.dcm", data_files.gray(1))


PREPARED = {"docs/predict.md": prepare_predictions}
"""Fixtures that prepare the folder of a page's blocks."""
