import re

import pytest
import torch

from onecycle.core.device import default_seed, derived_seed, pick_device, preserve_rng_state, seed_generators
from onecycle.errors import DeviceError


def test_the_environment_decides_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONECYCLE_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    monkeypatch.setenv("ONECYCLE_DEVICE", "tpu")
    with pytest.raises(DeviceError, match='unknown device "tpu"; expected cpu, cuda, cuda:N or mps'):
        pick_device()
    assert pick_device("cpu") == torch.device("cpu")


def test_known_to_torch_but_not_to_us():
    with pytest.raises(DeviceError, match='unknown device "meta"'):
        pick_device("meta")


@pytest.mark.parametrize("name", [3.5, True, [], 10**30, -1])
def test_what_is_no_name_of_a_device(name: object):
    with pytest.raises(DeviceError, match=f'^unknown device "{re.escape(str(name))}"; expected cpu, cuda'):
        pick_device(name)  # pyright: ignore


def test_seeds_differ_by_what_they_are_for():
    seeds = {derived_seed(1, use, epoch) for use in range(3) for epoch in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)


def test_the_default_seed_is_torchs_and_reading_it_moves_nothing():
    torch.manual_seed(77)
    before = torch.get_rng_state()
    assert default_seed() == 77
    assert torch.equal(before, torch.get_rng_state())


def test_generators_are_given_back_after_an_error():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), preserve_rng_state(torch.device("cpu")):
        torch.rand(3)
        raise ZeroDivisionError
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_itself_is_given_back():
    torch.manual_seed(5)
    with preserve_rng_state(torch.device("cpu")):
        seed_generators(9, torch.device("cpu"))
        assert default_seed() == 9
    assert default_seed() == 5
