"""The scripts of findings/ are as its README says: pinned, on their own, and listed. Running them needs a network."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from doc_pages import ROOT

FOLDER = ROOT / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def test_every_script_is_listed_once() -> None:
    listed = re.findall(r"^\| `([\w-]+\.sh)`", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert listed == [script.name for script in SCRIPTS] and listed


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_valid_pins_its_packages_and_does_without_this_project(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    shell, code = re.fullmatch(r"(.*<<'EOF'\n)(.*)EOF\n", script.read_text(), re.DOTALL).groups()
    ast.parse(code)
    packages = re.search(r'--python "\$folder/venv" \\\n +(.*)', shell).group(1).split()
    assert all(re.fullmatch(r'"?[\w-]+(\[\w+\])?==[\d.]+"?', package) for package in packages), packages
    assert "$(mktemp -d)" in shell and 'cd "$folder"' in shell
    assert not re.search(r"\b(rlcas|synth|envs|cluster)\b", script.read_text())
