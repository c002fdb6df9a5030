from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import classification

from onecycle.errors import DataError, SettingError
from onecycle.train.epoch_metrics import f1_score, r2_score, rmse, roc_auc
from onecycle.train.metrics import (
    accuracy,
    epoch_metric,
    error_rate,
    mean_absolute_error,
    metric_name,
    root_mean_squared_error,
    top_k_accuracy,
)
from onecycle.train.scores import EpochScores, batch_scores, is_batchwise, weighted_mean

Batch = tuple[Tensor, Tensor]


def batches(sizes: list[int], classes: int = 4, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, classes, generator=generator), torch.randint(0, classes, (n,), generator=generator))
        for n in sizes
    ]


def epoch_scores(metrics: list[Any], rows: list[Batch], **options: Any) -> list[float]:
    scores = EpochScores(metrics, **options)
    for preds, targets in rows:
        scores.add(preds.sum(), preds, targets, len(targets))
    return scores.result()


def by_weighted_mean(metrics: list[Any], rows: list[Batch]) -> list[float]:
    """What the loop did before there was EpochScores."""
    values: list[Tensor] = []
    for preds, targets in rows:
        loss = preds.sum()
        row = [loss, *(torch.as_tensor(metric(preds, targets), device=loss.device) for metric in metrics)]
        values.append(torch.stack([value.float().reshape(()) for value in row]))
    return weighted_mean(torch.stack(values), [len(targets) for _, targets in rows])


def rows_as_int(preds: Tensor, targets: Tensor) -> Any:
    return len(preds)


def third(preds: Tensor, targets: Tensor) -> Any:
    return 1 / 3


def of_numpy(preds: Tensor, targets: Tensor) -> Any:
    return preds.numpy().mean(dtype=np.float32)


def one_element(preds: Tensor, targets: Tensor) -> Any:
    return preds.double().mean().reshape(1)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    metrics=st.lists(
        st.sampled_from(
            [accuracy, error_rate, partial(top_k_accuracy, k=2), rows_as_int, third, of_numpy, one_element]
        ),
        max_size=6,
    ),
    seed=st.integers(0, 1000),
)
def test_metrics_of_batches_are_bit_for_bit_the_weighted_mean(sizes: list[int], metrics: list[Any], seed: int):
    rows = batches(sizes, seed=seed)
    assert epoch_scores(metrics, rows) == by_weighted_mean(metrics, rows)


def test_scores_of_many_batches_can_be_taken_in_at_once():
    rows, metrics = batches([8, 8, 8, 3]), [accuracy, third]
    scores = EpochScores(metrics)
    scores.add_scores(
        torch.stack([batch_scores(preds.sum(), metrics, preds, targets) for preds, targets in rows[:3]]), 8
    )
    scores.add(rows[3][0].sum(), *rows[3], 3)
    assert scores.result() == epoch_scores(metrics, rows) == by_weighted_mean(metrics, rows)


def test_which_metrics_are_functions_of_one_batch():
    assert is_batchwise([])
    assert is_batchwise([accuracy, partial(top_k_accuracy, k=2), third])
    assert not is_batchwise([accuracy, f1_score])
    assert not is_batchwise([partial(f1_score)])
    assert not is_batchwise([classification.BinaryF1Score()])


def test_values_come_in_the_order_of_the_metrics():
    rows = batches([8, 8, 3])
    whole = torch.cat([preds for preds, _ in rows]), torch.cat([targets for _, targets in rows])
    running = classification.MulticlassF1Score(num_classes=4)
    found = epoch_scores([f1_score, accuracy, running, roc_auc, error_rate], rows)
    loss, accurate, error = by_weighted_mean([accuracy, error_rate], rows)
    assert found == [loss, f1_score(*whole), accurate, pytest.approx(f1_score(*whole)), roc_auc(*whole), error]


def test_the_epochs_value_is_not_the_mean_of_the_batches():
    rows = [(torch.tensor([[2.0], [3.0]]), torch.tensor([0.0, 0.0])), (torch.tensor([[0.5]]), torch.tensor([1.0]))]
    found = epoch_scores([rmse, root_mean_squared_error], rows)
    assert found[1] == pytest.approx((13.25 / 3) ** 0.5)
    assert found[2] == pytest.approx((2 * 6.5**0.5 + 0.5) / 3)


def test_predictions_are_stored_only_for_metrics_over_the_epoch_and_without_their_graph():
    for metrics, stored in (([accuracy], 0), ([accuracy, f1_score], 1)):
        scores = EpochScores(metrics)
        (preds, targets) = batches([4])[0]
        preds.requires_grad_()
        scores.add(preds.sum(), preds, targets, 4)
        assert len(scores._batches) == stored
        assert not any(part.requires_grad for pair in scores._batches for part in pair)
        assert not scores._scores.requires_grad


def test_outputs_and_targets_may_be_lists_of_tensors():
    @epoch_metric
    def of_two(preds: Any, targets: Any) -> Any:
        assert [type(preds), type(targets)] == [tuple, list]
        return len(preds[0]) + len(targets[1]) / 10

    scores = EpochScores([of_two])
    for rows in (3, 2):
        scores.add(torch.zeros(()), (torch.rand(rows, 4), torch.rand(rows)), [torch.rand(rows), torch.rand(rows)], rows)
    assert scores.result() == [0, 5.5]


def test_the_inverse_transform_applies_to_what_metrics_see_and_not_to_the_loss():
    seen: list[float] = []

    def spy(preds: Tensor, targets: Tensor) -> float:
        seen.append(preds.max().item())
        return 0.0

    rows = [(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])), (torch.tensor([3.0]), torch.tensor([2.0]))]
    running = torchmetrics.MeanAbsoluteError()
    metrics = [spy, mean_absolute_error, rmse, running]
    found = epoch_scores(metrics, rows, inverse_transform=lambda values: values * 10 + 100)
    assert found == [3, 0, pytest.approx(20 / 3), pytest.approx((200 / 3) ** 0.5), pytest.approx(20 / 3)]
    assert seen == [120, 130]


def test_the_inverse_transform_is_not_called_without_metrics():
    assert epoch_scores([], batches([2]), inverse_transform=lambda values: pytest.fail("asked")) == by_weighted_mean(
        [], batches([2])
    )


def test_no_batches_is_an_error():
    with pytest.raises(DataError, match="^the validation set has no batches; give it rows, or leave it out$"):
        EpochScores([accuracy]).result()


def test_options_of_a_metric_over_the_epoch_are_those_of_its_partial():
    @epoch_metric
    def spread(preds: Tensor, targets: Tensor, scale: float = 1.0) -> float:
        return scale * (preds.max() - preds.min()).item()

    rows = batches([3, 5])
    whole = torch.cat([preds for preds, _ in rows])
    found = (whole.max() - whole.min()).item()
    assert epoch_scores([spread, partial(spread, scale=2.0)], rows)[1:] == [found, 2 * found]


# --- torchmetrics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "functional"),
    [
        (classification.MulticlassAccuracy(4, average="micro"), accuracy),
        (classification.MulticlassAUROC(4), roc_auc),
        (torchmetrics.F1Score(task="multiclass", num_classes=4, average="macro"), f1_score),
    ],
)
def test_metrics_of_torchmetrics_are_reset_fed_and_computed(metric: Any, functional: Any):
    metric.update(*batches([16], seed=9)[0])  # what an earlier epoch left
    rows = batches([16, 16, 5])
    whole = torch.cat([preds for preds, _ in rows]), torch.cat([targets for _, targets in rows])
    for _ in range(2):
        assert epoch_scores([metric], rows)[1] == pytest.approx(float(functional(*whole)), abs=1e-6)


def test_torchmetrics_takes_the_floats_that_bce_takes_and_a_column_for_a_vector():
    preds, targets = torch.randn(30, 1), torch.arange(30) % 2
    for metric in (classification.BinaryF1Score(), classification.BinaryAveragePrecision()):
        expected = metric(preds[:, 0], targets).item()
        assert epoch_scores([metric], [(preds, targets.float())])[1] == expected
    labels = classification.MultilabelAUROC(2)
    preds, targets = torch.randn(30, 2), torch.stack([torch.arange(30) % 2, torch.arange(30) % 3 == 0], 1)
    expected = labels(preds, targets).item()
    assert epoch_scores([labels], [(preds, targets.float())])[1] == expected
    score = torchmetrics.R2Score()
    preds, targets = torch.randn(30, 1), torch.randn(30)
    assert epoch_scores([score], [(preds, targets)])[1] == pytest.approx(r2_score(preds, targets), abs=1e-6)


def test_torchmetrics_moves_to_the_device_of_the_predictions():
    moves: list[torch.device] = []

    class Counts:
        """Any object with these methods, of torchmetrics or not."""

        def to(self, device: torch.device) -> None:
            moves.append(device)

        def reset(self) -> None:
            self.rows = 0

        def update(self, preds: Tensor, targets: Tensor) -> None:
            self.rows += len(preds)

        def compute(self) -> int:
            return self.rows

        def __call__(self, preds: Tensor, targets: Tensor) -> float:
            raise AssertionError

    assert metric_name(Counts()) == "Counts"
    assert epoch_scores([Counts()], batches([3, 4]))[1] == 7
    assert moves == [torch.device("cpu")]


# --- errors ----------------------------------------------------------------------------------------------------------


def per_class(preds: Tensor, targets: Tensor) -> Any:
    return preds.mean(0)


def as_dict(preds: Tensor, targets: Tensor) -> Any:
    return {"a": 1.0}


def nothing(preds: Tensor, targets: Tensor) -> Any:
    return None


def words(preds: Tensor, targets: Tensor) -> Any:
    return "good"


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (per_class, 'metric "per_class" returns 4 numbers (shape (4,)); expected one, for example their mean'),
        (as_dict, 'metric "as_dict" returns a dict; expected one number: pass a metric for each number'),
        (nothing, 'metric "nothing" returns None; expected one number: pass a metric for each number'),
        (words, 'metric "words" returns a str; expected one number: pass a metric for each number'),
        (
            classification.MulticlassF1Score(4, average=None),
            'metric "MulticlassF1Score" returns 4 numbers (shape (4,)); expected one, for example their mean',
        ),
        (
            torchmetrics.MetricCollection([classification.MulticlassF1Score(4)]),
            'metric "MetricCollection" returns a dict; expected one number: pass a metric for each number',
        ),
    ],
)
def test_a_metric_that_returns_no_number_is_named(metric: Any, text: str):
    marked = [] if hasattr(metric, "update") else [epoch_metric(metric)]
    for form in (metric, *marked):
        with pytest.raises(SettingError) as raised:
            epoch_scores([accuracy, form], batches([6, 3]))
        assert str(raised.value) == text


def test_an_error_in_a_users_metric_comes_through():
    def broken(preds: Tensor, targets: Tensor) -> float:
        raise ZeroDivisionError("mine")

    for metric in (broken, epoch_metric(broken)):
        with pytest.raises(ZeroDivisionError, match="^mine$"):
            epoch_scores([metric], batches([3]))


def test_batches_that_cannot_be_joined_are_explained():
    scores = EpochScores([epoch_metric(third)])
    for length in (3, 4):
        scores.add(torch.zeros(()), torch.rand(2, length), torch.rand(2), 2)
    with pytest.raises(
        DataError, match="^metrics over the epoch need outputs and targets that can be concatenated over bat"
    ):
        scores.result()
    scores = EpochScores([epoch_metric(third)])
    for name in ("logits", "other"):
        scores.add(torch.zeros(()), {name: torch.rand(2)}, torch.rand(2), 2)
    with pytest.raises(
        DataError, match="expected tensors, or lists and dicts of them, of the same shape for each row$"
    ):
        scores.result()


def test_outputs_of_an_epoch_keep_their_names():
    class Output(NamedTuple):
        logits: Tensor
        aux: Tensor

    @epoch_metric
    def by_name(preds: Any, targets: Any) -> Any:
        return preds.logits.sum() + preds.aux.mean() + targets["y"].sum()

    scores = EpochScores([by_name], inverse_transform=lambda values: values + 1)
    for rows in (3, 2):
        scores.add(torch.zeros(()), Output(torch.ones(rows), torch.zeros(rows, 2)), {"y": torch.ones(rows)}, rows)
    assert scores.result() == [0, 10 + 1 + 10]


@pytest.mark.parametrize("parts", [[200], [1, 63, 64, 72]])
def test_many_batches_in_parts(parts: list[int]):
    sizes = [4] * 199 + [2]
    rows = batches(sizes)
    losses = torch.arange(200.0)
    scores = EpochScores([accuracy])
    for loss, (preds, targets) in zip(losses, rows, strict=True):
        scores.add(loss, preds, targets, len(targets))
    expected = scores.result()
    other, start = EpochScores([accuracy]), 0
    for part in parts[:-1]:
        rows_of_part = [torch.stack([losses[i], accuracy(*rows[i])]) for i in range(start, start + part)]
        other.add_scores(torch.stack(rows_of_part), 4)
        start += part
    for i in range(start, 200):
        other.add(losses[i], *rows[i], sizes[i])
    assert other.result() == pytest.approx(expected)
    assert expected[0] == pytest.approx(float((losses * torch.tensor(sizes)).sum() / sum(sizes)))


def test_metrics_in_units_that_float32_does_not_hold():
    preds, targets = torch.tensor([1e-50, 3e-50]).double() * 0 + 2e-50, torch.tensor([1.0, 3.0]).double() * 1e-50

    def own(preds: Tensor, targets: Tensor) -> float:
        return float((preds - targets).abs().max())

    _, root, mean, largest = batch_scores(
        torch.tensor(0.5), [root_mean_squared_error, mean_absolute_error, own], preds, targets
    ).tolist()
    assert [root, mean, largest] == pytest.approx([1e-50] * 3)
