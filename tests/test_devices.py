import pytest
import torch

from rlcas.devices import autocast, choose_device, same_bits
from rlcas.errors import UserError

CPU = torch.device("cpu")


def test_auto_precision_is_fp32_on_a_cpu():
    with autocast("auto", CPU):
        assert (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype == torch.float32


def test_bf16_can_be_asked_for():
    with autocast("bf16", CPU):
        assert (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    assert choose_device("auto") == CPU
    with pytest.raises(UserError, match=r"device 'cuda' is not there: .* set device to auto or cpu"):
        choose_device("cuda")


def test_the_cpu_can_be_asked_for():
    assert choose_device("cpu") == CPU


def test_the_global_generator_is_as_before():
    state = torch.random.get_rng_state()
    with same_bits(CPU):
        torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())
