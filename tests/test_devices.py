import subprocess
import sys

import pytest
import torch

from rlcas.classifiers import build_classifier
from rlcas.config import ClassifierConfig
from rlcas.devices import autocast, choose_device, place, same_bits
from rlcas.errors import UserError

CPU = torch.device("cpu")


def test_auto_precision_is_fp32_on_a_cpu():
    with autocast("auto", CPU):
        assert (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype == torch.float32


def test_bf16_can_be_set():
    with autocast("bf16", CPU):
        assert (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error():
    assert choose_device("auto") == CPU
    with pytest.raises(UserError, match=r"device 'cuda' is not available: .* set device to auto or cpu"):
        choose_device("cuda")


def test_the_cpu_can_be_set():
    assert choose_device("cpu") == CPU


def is_channels_last(model: torch.nn.Module) -> bool:
    return model.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("width", "safe"), [(8, False), (16, True)])
def test_channels_last_is_for_classifiers_that_onednn_can_train(width, safe):
    config = ClassifierConfig(width=width)
    model = build_classifier(config, channels=1, num_classes=3, size_px=16)
    assert is_channels_last(place(model, CPU)) is safe


@pytest.mark.medium
def test_a_narrow_classifier_trains_in_two_threads_without_corrupting_the_heap():
    # A corrupted heap ends the process, so another one trains.
    code = (
        "import torch; from rlcas.classifiers import build_classifier; from rlcas.config import ClassifierConfig;"
        "from rlcas.devices import place; torch.set_num_threads(2);"
        "m = build_classifier(ClassifierConfig(width=8), channels=3, num_classes=3, size_px=16);"
        "m = place(m, torch.device('cpu')); x = torch.rand(22, 3, 16, 16);"
        "[m(x).sum().backward() for _ in range(10)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_global_generator_is_as_before():
    state = torch.random.get_rng_state()
    with same_bits(CPU):
        torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())
