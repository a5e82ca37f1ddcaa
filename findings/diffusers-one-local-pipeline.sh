#!/bin/sh
# diffusers loads every local pipeline.py as one module and one cache file: two projects exclude each other.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    torch==2.15.0 diffusers==0.42.1
cd "$folder"
HF_HOME="$folder/hub" venv/bin/python - <<'EOF'
import json
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import DDPMScheduler, DiffusionPipeline

CODE = """from diffusers import DiffusionPipeline


class {name}(DiffusionPipeline):
    def __init__(self, scheduler):
        super().__init__()
        self.register_modules(scheduler=scheduler)
"""


def load(name):
    """Write a folder with a pipeline of its own, as diffusers documents it, and load it."""
    folder = Path(name)
    DDPMScheduler().save_pretrained(folder / "scheduler")
    index = {"_class_name": name, "scheduler": ["diffusers", "DDPMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "pipeline.py").write_text(CODE.format(name=name))
    return DiffusionPipeline.from_pretrained(folder, custom_pipeline=name, trust_remote_code=True)


print("diffusers", diffusers.__version__, "torch", torch.__version__)
print("expected: two folders, two classes, each with the source that it was loaded from")
first = load("First")
source = Path(sys.modules[type(first).__module__].__file__)
assert "class First" in source.read_text()
try:
    load("Second")
except ValueError as error:
    print("seen: the second folder cannot be loaded:", error)
    assert "Multiple classes" in str(error) and "First, and Second" in str(error)
else:
    sys.exit("changed: the second folder is loaded too")
print("seen: the file of the class First now holds:", source.read_text().split("class ")[1].split(":")[0])
assert "class First" not in source.read_text() and "class Second" in source.read_text()
EOF
