#!/bin/sh
# channels_last, documented as the format of 4-D parameters, fails on a timm model with 5-D ones.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    torch==2.15.0 torchvision==0.29.2 timm==1.0.31
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import timm
import torch

print("timm", timm.__version__, "torch", torch.__version__)
assert "for 4D parameters and buffers" in " ".join(torch.nn.Module.to.__doc__.split())
print("expected: parameters that are not 4-D stay as they are")
model = timm.create_model("lambda_resnet26t", num_classes=5)
print("5-D:", *(name for name, weight in model.named_parameters() if weight.dim() == 5))
try:
    model.to(memory_format=torch.channels_last)
except RuntimeError as error:
    print("seen: RuntimeError:", error)
    assert "required rank 4 tensor" in str(error)
else:
    sys.exit("changed: the model is converted")
first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
converted = first.weight.is_contiguous(memory_format=torch.channels_last)
print("seen: the model is left half converted, its first convolution is channels_last:", converted)
assert converted, "changed"
EOF
