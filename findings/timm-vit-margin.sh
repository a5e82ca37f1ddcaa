#!/bin/sh
# timm's vision transformers take an image size that is no multiple of the patch, and never read the margin.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    torch==2.15.0 torchvision==0.29.2 timm==1.0.31
cd "$folder"
venv/bin/python - <<'EOF'
import timm
import torch

print("timm", timm.__version__, "torch", torch.__version__)
print("expected: every pixel of an image of the size that the model was made for can change its output, or an error")
torch.manual_seed(0)
for name, unread in (("vit_tiny_patch16_224", 1 - (16 / 28) ** 2), ("pit_ti_224", 1 - (24 / 28) ** 2)):
    model = timm.create_model(name, img_size=28, num_classes=5).eval()
    images = torch.randn(8, 3, 28, 28, requires_grad=True)
    model(images).square().sum().backward()
    share = (images.grad.abs().sum(dim=(0, 1)) == 0).float().mean().item()
    print(f"seen: {name} at 28 x 28: the gradient of {share:.1%} of the pixels is zero")
    assert abs(share - unread) < 0.001, "changed"
EOF
