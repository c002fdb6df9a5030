"""Data are told from other data."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from conftest import toy_arrays
from onecycle import DataBunch
from onecycle.data.loaders import data_fingerprint


def test_the_same_data_have_the_same_fingerprint():
    one, two = (DataBunch.create(toy_arrays(), bs=16, seed=seed).train_dl for seed in (1, 2))
    found = data_fingerprint(one)
    assert found == data_fingerprint(two)
    assert {key: found[key] for key in ("rows", "bs", "batches")} == {"rows": 200, "bs": 16, "batches": 12}


def test_a_bit_a_shape_and_a_batch_size_make_another():
    x, y = toy_arrays()
    usual = data_fingerprint(DataBunch.create((x, y), bs=16, seed=1).train_dl)
    other = x.clone()
    other[199, 19] = torch.nextafter(other[199, 19], torch.tensor(9.0))
    for pair, bs in (((other, y), 16), ((x.view(200, 4, 5), y), 16), ((x, y), 8), ((x[:199], y[:199]), 16)):
        assert data_fingerprint(DataBunch.create(pair, bs=bs, seed=1).train_dl) != usual


def test_other_loaders_say_what_they_know():
    loader = DataBunch(DataLoader(TensorDataset(*toy_arrays()), 48), seed=1).train_dl
    assert data_fingerprint(loader) == {"rows": 200, "bs": 48, "batches": 5, "data set": "TensorDataset"}
    assert data_fingerprint(None) == {"rows": 0}


def test_half_precision_bytes_and_large_rows_are_hashed():
    for x in (torch.zeros(3, 2, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bool), torch.zeros(2, 5_000_000)):
        data = DataBunch.create((x, torch.arange(len(x))), bs=2, seed=1, device="cpu")
        assert len(data_fingerprint(data.train_dl)["sha256"]) == 64
