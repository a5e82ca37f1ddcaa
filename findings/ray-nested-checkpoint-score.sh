#!/bin/sh
# A nested checkpoint_score_attribute, the form that Tune's metrics have, keeps the newest checkpoint, silently.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    "ray[tune]==2.60.0"
cd "$folder"
RAY_USAGE_STATS_ENABLED=0 RAY_AIR_NEW_OUTPUT=0 venv/bin/python - <<'EOF'
import json
import os
from pathlib import Path

import ray
from ray import tune


class Falling(tune.Trainable):
    """Its first epoch is its best."""

    def setup(self, config):
        self.epoch = 0

    def step(self):
        self.epoch += 1
        return {"top": -self.epoch, "test": {"f1": -self.epoch}, "done": self.epoch == 3}

    def save_checkpoint(self, folder):
        Path(folder, "epoch.json").write_text(json.dumps(self.epoch))

    def load_checkpoint(self, folder):
        self.epoch = json.loads(Path(folder, "epoch.json").read_text())


def trained(score):
    """Train with a checkpoint after every epoch, of which the best by `score` is to be kept."""
    checkpoints = tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1, checkpoint_score_attribute=score)
    run = tune.RunConfig(
        name=score.replace("/", "-"), storage_path=os.getcwd(), verbose=0, checkpoint_config=checkpoints
    )
    return tune.Tuner(Falling, run_config=run).fit()[0]


print("ray", ray.__version__)
quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
ray.init(num_cpus=1, _temp_dir=os.path.abspath("ray"), **quiet)
print("expected: the checkpoint of epoch 1, which has the highest score, is kept beside the newest")
for score, expected in (("top", [1, 3]), ("test/f1", [3])):
    result = trained(score)
    assert result.error is None and score in result.metrics_dataframe
    files = Path(result.path).glob("checkpoint_*/epoch.json")
    kept = sorted(json.loads(file.read_text()) for file in files)
    print(f"seen: by {score!r}, epochs {kept}")
    assert kept == expected, "changed"
EOF
