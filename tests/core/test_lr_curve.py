"""What the curve of the LR finder suggests: a rate that trains, or the default with the reason."""

import copy
import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

from onecycle.core.lr_curve import DEFAULT_RATE, LRCurve, Suggestion
from onecycle.core.record import Smoother

LRS: list[float] = np.geomspace(1e-7, 10, 100).tolist()


def curve(losses: Any) -> LRCurve:
    return LRCurve(LRS[: len(losses)], Smoother().add(losses.tolist()))


def learning(spread: float, seed: int = 0) -> LRCurve:
    """Flat until 1e-4, then a fall until 1e-2, then a rise."""
    decades = np.log10(LRS)
    losses = 2 - 0.7 * np.clip(decades + 4, 0, 2) + 3 * np.clip(decades + 1.5, 0, None)
    return curve(losses + spread * np.random.default_rng(seed).normal(size=100))


def noise(seed: int, kind: str, count: int = 100) -> LRCurve:
    random = np.random.default_rng(seed)
    return curve(getattr(random, kind)(size=count) + (5 if kind == "normal" else 0))


def test_suggestions_of_a_curve_whose_shape_is_known():
    lrs = [10 ** (i / 10 - 6) for i in range(61)]  # flat, a fall from 1e-3 to 1e-1, then up
    losses = [2.0 if i < 30 else 2.0 - (i - 30) * 0.09 if i <= 50 else 0.2 + (i - 50) for i in range(61)]
    found = LRCurve(lrs, losses).suggestions()
    assert found["minimum"] == pytest.approx(1e-2)
    assert 1e-3 < found["valley"] < 1e-1
    assert 1e-3 <= found["steep"] <= 1e-1
    assert LRCurve(lrs[:4], losses[:4]).suggestions() == {}


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_a_fall_that_stands_out_of_the_noise_is_found(spread: float, seed: int):
    found = learning(spread, seed)
    assert found.choice.is_certain
    assert 1e-4 < found.suggestion < 3e-2
    assert found.suggestion == found.suggestions()["valley"]
    assert found.suggestion.why.startswith("valley: ")


@pytest.mark.parametrize("kind", ["normal", "exponential", "lognormal"])
@pytest.mark.parametrize("count", [30, 100])
def test_noise_suggests_nothing(kind: str, count: int):
    curves = [noise(seed, kind, count) for seed in range(200)]
    assert sum(each.choice.is_certain for each in curves) <= 8  # 1 % are expected
    assert all(each.choice >= LRS[count // 4] for each in curves)


def test_where_the_curve_says_nothing_it_is_the_default_with_a_warning():
    found = noise(1, "lognormal")
    said = "^lr_find: the loss does not fall by more than it varies from batch to batch; 0.003 is the default; look at"
    with pytest.warns(UserWarning, match=said):
        assert found.suggestion == DEFAULT_RATE == 3e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.suggestion == 3e-3  # it is said once
    assert found.suggestions() == {}
    assert "the loss does not fall" in repr(found)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0] * 9, [float("nan")] * 50, [1.0] * 5 + [float("inf")] * 60])
def test_too_few_losses(losses: list[float]):
    found = LRCurve(LRS[: len(losses)], losses)
    assert found.choice == 3e-3
    assert "are too few to suggest one; 0.003 is the default" in found.choice.why
    assert not found.choice.is_certain


def test_a_constant_loss_and_one_that_only_rises_suggest_nothing():
    assert not curve(np.ones(100)).choice.is_certain
    assert not curve(np.linspace(1, 9, 100)).choice.is_certain


def test_what_comes_after_a_nan_is_left_out():
    whole = learning(0.05)
    broken = LRCurve(LRS, [*whole.losses[:80], float("nan"), *whole.losses[81:]])
    assert broken.choice == LRCurve(LRS[:80], whole.losses[:80]).choice


def test_a_suggestion_is_a_number():
    found = Suggestion(1e-2, "for a reason")
    assert json.dumps({"lr": found}) == '{"lr": 0.01}'
    assert f"{found:.1e} {found}" == "1.0e-02 0.01"
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (copied, copied.why, copied.is_certain) == (1e-2, "for a reason", True)
