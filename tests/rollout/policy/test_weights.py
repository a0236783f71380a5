import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rollout.errors import PolicyError
from rollout.policy.weights import flatten, load_flat
from tests.rollout.tiny import tiny_policy


def parameters(model):
    return [p.detach().clone() for p in model.parameters()]


def two_layers(*values):
    """Two parameters, [1, 2] and [2, 1]."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    return list(model.parameters())


def test_parameters_lie_in_the_models_order_row_by_row():
    flat = flatten(two_layers([[1.0, 2.0]], [[3.0], [4.0]]), torch.float32)
    assert flat.dtype == np.float32 and flat.tolist() == [1, 2, 3, 4]


def test_bfloat16_travels_as_its_bits():
    flat = flatten(two_layers([[1.0, -2.0]], [[0.5], [0.0]]), torch.bfloat16)
    assert flat.dtype == np.int16
    assert [int(bits) & 0xFFFF for bits in flat] == [0x3F80, 0xC000, 0x3F00, 0]


def test_flatten_copies():
    model = two_layers([[1.0, 2.0]], [[3.0], [4.0]])
    flat = flatten(model, torch.float32)
    with torch.no_grad():
        model[0].zero_()
    assert flat.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_policy_of_the_same_type_becomes_equal(dtype):
    source, target = tiny_policy(0).model.to(dtype), tiny_policy(1).model.to(dtype)
    load_flat(list(target.parameters()), flatten(list(source.parameters()), dtype))
    assert all(torch.equal(a, b) for a, b in zip(parameters(source), parameters(target), strict=True))
    assert target.lm_head.weight is target.shared.weight


def test_float32_weights_arrive_rounded_in_a_bfloat16_policy():
    source, target = tiny_policy(0).model, tiny_policy(1).model.bfloat16()
    load_flat(list(target.parameters()), flatten(list(source.parameters()), torch.bfloat16))
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(parameters(source), parameters(target), strict=True))


def test_the_loaded_policy_does_not_share_the_arrays_memory():
    model = two_layers([[0.0, 0.0]], [[0.0], [0.0]])
    array = np.array([1, 2, 3, 4], np.float32)
    load_flat(model, array)
    array[:] = 9
    assert flatten(model, torch.float32).tolist() == [1, 2, 3, 4]


def test_a_read_only_array_is_accepted_without_a_warning():
    array = np.array([1, 2, 3, 4], np.float32)
    array.flags.writeable = False
    model = two_layers([[0.0, 0.0]], [[0.0], [0.0]])
    torch.set_warn_always(True)  # torch would otherwise tell only the first of them in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_flat(model, array)
    finally:
        torch.set_warn_always(False)
    assert flatten(model, torch.float32).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("array", [np.zeros(3, np.float32), np.zeros(5, np.float32), np.zeros(4), np.zeros(4, np.int16)])
def test_another_size_or_type_is_refused_and_changes_nothing(array):
    model = two_layers([[1.0, 2.0]], [[3.0], [4.0]])
    with pytest.raises(PolicyError, match=f"{array.size} x {array.dtype} do not fit a policy of 4 x torch.float32"):
        load_flat(model, array)
    assert flatten(model, torch.float32).tolist() == [1, 2, 3, 4]
