"""The emulated GPU says what CUDA would: these are the rules that the other tests here rely on."""

import pytest
import torch

GPU = "cuda"


def test_tensors_of_two_devices_do_not_mix(gpu):
    one, other = torch.ones(3, device=GPU), torch.ones(3)
    with pytest.raises(RuntimeError, match=r"same device: add of \['cuda:0 \[3\]', 'cpu \[3\]'\]"):
        one + other
    with pytest.raises(RuntimeError, match="indices should be on the CPU"):
        other[torch.tensor([0], device=GPU)]
    with pytest.raises(RuntimeError, match="values on the device"):
        one[torch.tensor([0, 1], device=GPU)] = other[:2]
    assert (one + torch.tensor(2.0)).device == torch.device("cuda", 0)  # a scalar may come from anywhere


def test_results_stay_on_the_device_of_their_inputs(gpu):
    weight = torch.nn.Linear(2, 2).to(GPU).weight
    (weight.sum() * 2).backward()
    assert weight.is_cuda and weight.grad.is_cuda and weight[0].view(-1).is_cuda
    assert weight.detach().cpu().device == torch.device("cpu")
    assert torch.zeros_like(weight).is_cuda and torch.arange(2, device=weight.device).is_cuda


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: float(x[0]),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0])],
        lambda x: x.cpu(),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.ones(2).to(x.device),
        lambda x: x.copy_(torch.ones(2)),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_the_host_must_know_makes_it_wait(gpu, waits):
    x = torch.ones(2, device=GPU)
    with gpu.counted() as found:
        waits(x)
    assert sum(found.values()) == 1


@pytest.mark.parametrize(
    "goes_on",
    [
        lambda x: x * 2 + torch.where(x > 0, x, 0.0),
        lambda x: x[x.argsort()],
        lambda x: torch.ones(2).to(x.device, non_blocking=True),
        lambda x: x.masked_fill(x > 0, 3.0),
        lambda x: x.to(torch.bfloat16).cumsum(0),
        lambda x: x.copy_(torch.ones(2), non_blocking=True),
    ],
)
def test_what_the_device_does_alone_makes_nobody_wait(gpu, goes_on):
    x = torch.ones(2, device=GPU)
    with gpu.counted() as found:
        goes_on(x)
    assert not found
