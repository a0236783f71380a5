from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rollout.policy.small_batch_linear import FEW, small_batch_linear

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def layer(request):
    torch.manual_seed(0)
    return nn.Linear(24, 40, bias=request.param)


@pytest.mark.parametrize("shape", [(1,), (7,), (FEW,), (FEW, 1), (2, 5), (1, 1), (2, 3, 4)])
def test_few_rows_give_the_same_values(layer, shape):
    x = torch.randn(*shape, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = layer(x)
        with small_batch_linear(FEW, CPU) as mode:
            thin = layer(x)
    assert mode is not None and thin.shape == plain.shape and thin.is_contiguous()
    torch.testing.assert_close(thin, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rows", "thin"), [(FEW, True), (FEW + 1, False)])
def test_the_weight_comes_first_for_few_rows_alone(layer, rows, thin, monkeypatch):
    asked = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: asked.append(a.shape) or product(a, b))
    with torch.inference_mode(), small_batch_linear(FEW, CPU):
        layer(torch.zeros(rows, 24))
    assert asked == [layer.weight.shape] * thin


def test_a_bias_given_by_name_is_added(layer):
    x, bias = torch.randn(2, 24, generator=torch.Generator().manual_seed(1)), torch.arange(40.0)
    with torch.inference_mode(), small_batch_linear(2, CPU):
        torch.testing.assert_close(F.linear(x, layer.weight, bias=bias), x @ layer.weight.T + bias)


def test_an_input_that_is_not_contiguous_is_no_hindrance(layer):
    x = torch.randn(24, 3, 2, generator=torch.Generator().manual_seed(1)).transpose(0, 2)
    with torch.inference_mode(), small_batch_linear(6, CPU):
        thin = layer(x)
    assert thin.is_contiguous()
    torch.testing.assert_close(thin, layer(x.contiguous()), rtol=1e-6, atol=1e-6)


def test_many_rows_inside_it_are_left_alone(layer):
    x = torch.randn(FEW + 1, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = layer(x)
        with small_batch_linear(FEW, CPU):
            assert torch.equal(layer(x), plain)


def test_above_few_rows_and_off_the_cpu_there_is_no_mode():
    assert not isinstance(small_batch_linear(FEW, CPU), nullcontext)
    assert isinstance(small_batch_linear(FEW + 1, CPU), nullcontext)
    assert isinstance(small_batch_linear(1, torch.device("cuda")), nullcontext)
