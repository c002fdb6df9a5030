"""The recorder adds to the record what is new, once, and stops at a loss that is not finite."""

import math

import pytest
import torch

from onecycle.core.record import Record, Smoother
from onecycle.errors import NonFiniteLossError
from onecycle.train.recorder import Recorder

CPU = torch.device("cpu")
LRS, MOMS = [0.1, 0.2, 0.3, 0.4], [0.9, 0.8, None, 0.7]


def test_losses_are_read_once_with_their_rates():
    recorder = Recorder()
    recorder.start_epoch(4, CPU).copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    for done in (1, 1, 3, 4):
        recorder.read(done, LRS, MOMS)
        assert recorder.record.batch_losses == [1.0, 2.0, 3.0, 4.0][:done]
    assert (recorder.lrs, recorder.moms) == (LRS, MOMS)
    assert recorder.losses == Smoother().add([1.0, 2.0, 3.0, 4.0])


def test_smoothing_continues_after_a_resumed_record():
    recorder = Recorder(Record(batch_losses=[1.0, 2.0], losses=Smoother().add([1.0, 2.0])))
    recorder.prime_smoothing()
    recorder.start_epoch(4, CPU, done=2).copy_(torch.tensor([9.0, 9.0, 3.0, 4.0]))
    recorder.read(4, LRS, MOMS)
    assert recorder.record.batch_losses == [1.0, 2.0, 3.0, 4.0]
    assert recorder.losses == Smoother().add([1.0, 2.0, 3.0, 4.0])
    assert recorder.lrs == LRS[2:]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(value: float):
    losses = torch.tensor([1.0, 2.0, value, 4.0])
    recorder = Recorder()
    recorder.start_epoch(4, CPU).copy_(losses)
    recorder.end_epoch(0, 4, None, 1.0)
    with pytest.raises(
        NonFiniteLossError, match=rf"the loss became {value} at step 2 \(epoch 1, batch 2\), lr 0.3; exp"
    ):
        recorder.read(4, LRS, MOMS)
    quiet = Recorder(stop_at_nan=False)
    quiet.start_epoch(4, CPU).copy_(losses)
    quiet.read(4, LRS, MOMS)
    assert len(quiet.losses) == 4


def test_rows_of_epochs_with_and_without_validation():
    recorder = Recorder(Record(metric_names=["a", "b"]))
    recorder.end_epoch(0, 4, [0.5, 1.0, 2.0], 1.5)
    recorder.end_epoch(1, 3, None, 2.5)
    record = recorder.record
    assert (record.epochs, record.nb_batches, record.seconds) == ([0, 1], [4, 3], [1.5, 2.5])
    assert recorder.val_losses == [0.5, None]
    assert recorder.metrics == [[1.0, 2.0], [None, None]]
