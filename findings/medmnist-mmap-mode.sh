#!/bin/sh
# MedMNIST's mmap_mode maps nothing: numpy ignores it for the .npz files that all its sets are.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    medmnist==3.0.2 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'EOF'
import resource

import medmnist
import numpy as np

print("medmnist", medmnist.__version__, "numpy", np.__version__)
arrays = {}
for split, number in (("train", 60_000), ("val", 10), ("test", 10)):
    arrays[f"{split}_images"] = np.zeros((number, 64, 64), np.uint8)
    arrays[f"{split}_labels"] = np.zeros((number, 1), np.uint8)
np.savez("breastmnist_64.npz", **arrays)  # the file's form, without compression
megabytes = arrays["train_images"].nbytes / 1e6
del arrays


def resident_megabytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


before = resident_megabytes()
dataset = medmnist.BreastMNIST(split="train", root=".", size=64, mmap_mode="r")
read = resident_megabytes() - before
print("expected: with mmap_mode='r' the images stay on disk until they are used")
print(f"seen: {type(dataset.imgs).__name__}, a memmap: {isinstance(dataset.imgs, np.memmap)}; "
      f"{read:.0f} MB more in memory for {megabytes:.0f} MB of images, of which none was used")
assert not isinstance(dataset.imgs, np.memmap), "changed"
assert read > 0.8 * megabytes, "changed"
EOF
