"""Does the model fit the data? Errors in the user's words instead of torch's."""

import reprlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from onecycle.core.checks import unwrap_partial
from onecycle.core.device import preserve_rng_state
from onecycle.data.loaders import InMemoryLoader, Loader
from onecycle.errors import DataError, ModelError, OneCycleError, SettingError
from onecycle.optim.groups import LayerGroup
from onecycle.train.callbacks.base import Callback
from onecycle.train.losses import is_classification, loss_name
from onecycle.train.metrics import Metric, is_epoch_metric, is_stateless, metric_name
from onecycle.train.scores import EpochScores
from onecycle.train.step import LossFunc, Objective, plain_forward


def try_loss(loss_func: LossFunc, preds: Any, targets: Any) -> Any:
    """The loss of a batch. Raises SettingError where it fails, or where torch warns that it pairs rows with others."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a target size", UserWarning)
            return loss_func(preds, targets)
    except OneCycleError:
        raise
    except Exception as error:  # whatever a user's function raises
        if not isinstance(preds, Tensor) or not isinstance(targets, Tensor):
            raise
        raise SettingError(
            f"the loss {loss_name(loss_func)} is given outputs {_shape(preds)} and targets {_shape(targets)}"
            f"{'' if isinstance(error, UserWarning) else f' ({_said(error)})'}; {_fitting_loss(preds, targets)}"
        ) from error


def try_metrics(objective: Objective, model: nn.Module, loader: InMemoryLoader) -> None:
    """Try metrics that are plain functions on a few rows, the model in eval mode. Metrics with a state are skipped.

    Raises SettingError, or what our own metrics raise, for one that fails or returns something else than a number.
    """
    inverse_transform = objective.inverse_transform
    with preserve_rng_state(loader.tensors[0].device):
        for metric in filter(is_stateless, objective.metrics):
            if _failure(metric, model, [loader.peek()], inverse_transform):  # perhaps these rows are too few
                batches = islice(loader.epoch(0), None if is_epoch_metric(metric) else 1)
                if error := _failure(metric, model, batches, inverse_transform):
                    raise error from error.__cause__


def _failure(
    metric: Metric,
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    restore: Callable[[Tensor], Tensor] | None,
) -> SettingError | None:
    """What to say where a metric fails on these batches; errors of ours are raised as they are."""
    preds = yb = None
    tally = EpochScores([metric], restore)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is said of a few rows need not hold of all
            for xb, yb in batches:
                preds = plain_forward(model, xb)
                tally.add(torch.zeros(()), preds, yb, 1)
            tally.result()
    except OneCycleError:
        raise
    except Exception as error:  # whatever a user's function raises
        failure = SettingError(
            f'metric "{metric_name(metric)}" fails on outputs {_shape(preds)} and targets {_shape(yb)} '
            f"({_said(error)}); expected a function of (outputs, targets) that gives one number{_fitting(yb)}"
        )
        failure.__cause__ = error
        return failure
    return None


def _fitting_loss(preds: Tensor, targets: Tensor) -> str:
    if preds.numel() != targets.numel():
        labels = not targets.is_floating_point() and targets.ndim == preds.ndim - 1
        if labels:
            return "for labels of classes use nn.CrossEntropyLoss()"
        return "expected as many outputs for a row as y has columns"
    shape = ", ".join(map(str, (-1, *preds.shape[1:])))
    reshaped = f".reshape({shape})" if preds.shape != targets.shape else ""
    as_float = "" if targets.is_floating_point() else ".float()"
    mend = reshaped + as_float
    return f"expected targets like the outputs: use y{mend}" if mend else "expected a function of (outputs, targets)"


def _fitting(targets: Any) -> str:
    """The metrics for such targets, to end a sentence with."""
    if not isinstance(targets, Tensor):
        return ""
    if not targets.is_floating_point():
        return ", for classes for example accuracy, f1_score or roc_auc"
    return ", for a regression for example rmse, mae or r2_score, for labels of 0 and 1 f1_score or roc_auc"


def _shape(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def _said(error: Exception) -> str:
    """The error's kind and first line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


FAILURES = (RuntimeError, IndexError, ValueError, TypeError)  # what torch raises for what does not fit


def check_arguments(model: Any, loss_func: Any, metrics: list[Any]) -> None:
    """Raises SettingError for what is no model, loss or metric."""
    if not isinstance(model, nn.Module):
        raise SettingError(f"model is {reprlib.repr(model)}; expected an instance of torch.nn.Module")
    if isinstance(loss_func, type):
        raise SettingError(f"loss_func is the class {loss_func.__name__}; expected {loss_func.__name__}()")
    for kind, function in (("loss_func", loss_func), *(("metrics", metric) for metric in metrics)):
        if isinstance(function, type) and kind == "metrics":
            raise SettingError(f"metrics: {function.__name__} is a class; expected {function.__name__}(...)")
        if function is not None and not callable(function):
            raise SettingError(f"{kind}: {function!r} is no function; expected, for example, metrics=accuracy")


def check_opt_func(opt_func: Any, groups: Sequence[LayerGroup]) -> None:
    """Raises SettingError for what makes no optimizer, and for one that cannot train these layer groups."""
    if isinstance(opt_func, Optimizer):
        name = type(opt_func).__name__
        raise SettingError(
            f"opt_func is an optimizer that is made already; expected its class, opt_func={name}, or with settings "
            f"partial({name}, ...)"
        )
    if not callable(opt_func):
        raise SettingError(
            f"opt_func is {reprlib.repr(opt_func)}; expected what makes an optimizer: opt_func=torch.optim.Adam"
        )
    kind = unwrap_partial(opt_func)
    if kind is torch.optim.LBFGS:
        raise SettingError(
            "opt_func: LBFGS asks for the loss several times in a step; expected an optimizer that takes one gradient "
            "a step: opt_func=torch.optim.Adam"
        )
    trained = (leaf for group in groups for leaf in group if any(p.requires_grad for p in leaf.parameters()))
    if kind is torch.optim.SparseAdam and (dense := [leaf for leaf in trained if not getattr(leaf, "sparse", False)]):
        raise SettingError(
            f"opt_func: SparseAdam takes sparse gradients alone, and {type(dense[0]).__name__} has others; expected "
            "opt_func=torch.optim.Adam, or torch.optim.SGD where an Embedding gives sparse ones"
        )


def check_callbacks(callbacks: Sequence[Any], callback_fns: Sequence[Any]) -> None:
    """Raises SettingError for a class among the callbacks, and for what gives none among the functions."""
    for callback in callbacks:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise SettingError(f"callbacks: {callback.__name__} is a class; expected {callback.__name__}(...)")
    for make in callback_fns:
        if isinstance(make, Callback):
            raise SettingError(f"callback_fns: {type(make).__name__}(...) is a callback already; give it as callbacks=")
        if not callable(make):
            raise SettingError(
                f"callback_fns: {reprlib.repr(make)} is no function; expected one that takes the learner and gives a "
                "callback"
            )


def check_before_fit(model: nn.Module, objective: Objective, train_dl: Loader, valid_dl: Loader | None) -> None:
    """Try model, loss and metrics on a few rows in eval mode and look at all labels, before anything is changed.

    Loaders that are not in memory are not looked at; their errors come with the batch that has them.

    Raises:
        ModelError: If the model cannot take the rows.
        DataError: If the targets do not fit the outputs, or there are no batches.
        SettingError: If the loss or a metric fails.
    """
    loss_func = objective.loss_func
    if not len(train_dl):
        raise DataError(
            "the training loader has no batches: fewer rows than a batch, and the last short one is dropped"
        )
    for name, loader in (("train", train_dl), ("valid", valid_dl)):
        if not isinstance(loader, InMemoryLoader):
            continue
        xb, yb = loader.peek()
        if yb is None:
            raise _no_targets(name)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                preds = plain_forward(model, xb)
                if isinstance(preds, Tensor):
                    check_targets(loss_func, preds, loader.tensors[-1], name)
                _check_loss(try_loss(loss_func, preds, yb))
                if loader is valid_dl:
                    try_metrics(objective, model, loader)
        except OneCycleError:
            raise
        except FAILURES as error:
            raise explain(error, model, loss_func, xb, yb, name) from error
        finally:
            for module, mode in modes:
                module.training = mode


def explain(error: Exception, model: nn.Module, loss_func: LossFunc | None, xb: Any, yb: Any, name: str) -> Exception:
    """The error to raise for `error`, which came up on batch (xb, yb): ours where the cause is known, else `error`.

    `loss_func` is None where only the model was asked.
    """
    if isinstance(error, OneCycleError):
        return error
    if loss_func is not None and yb is None:
        return _no_targets(name)
    reached: list[tuple[str, nn.Linear, Tensor]] = []
    marks = [_mark(layer, module, reached) for layer, module in model.named_modules() if isinstance(module, nn.Linear)]
    try:
        with torch.no_grad():
            preds = plain_forward(model, xb)
    except FAILURES:
        return (_explain_linear(*reached[-1], xb, name) if reached else None) or error
    finally:
        for mark in marks:
            mark.remove()
    if loss_func is None or not isinstance(preds, Tensor):
        return error
    try:
        check_targets(loss_func, preds, yb, name)
        _check_loss(try_loss(loss_func, preds, yb))
    except OneCycleError as ours:
        return ours
    except FAILURES:
        return error
    return error


def _mark(layer: str, module: nn.Linear, reached: list[tuple[str, nn.Linear, Tensor]]) -> RemovableHandle:
    """Note in `reached` when the model gets to this layer, and with what."""

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        reached.append((layer, module, args[0]))

    return module.register_forward_pre_hook(note)


def _explain_linear(layer: str, module: nn.Linear, given: Tensor, xb: Any, name: str) -> ModelError | None:
    """Why the last Linear layer that was reached could not take what it was given; None where it could have."""
    x = xb[0] if isinstance(xb, list) else xb
    called = f" ({layer})" if layer else ""
    if given.shape[-1] != module.in_features:
        if given is x:
            return ModelError(
                f"{name}.x has {x.shape[-1]} columns (shape {tuple(x.shape)}); the model's first Linear layer{called} "
                f"takes {module.in_features}: change the layer, or the columns of x"
            )
        return ModelError(
            f"the model's Linear layer{called} takes {module.in_features} columns and is given {given.shape[-1]} "
            f"(shape {tuple(given.shape)}): change the layer, or what comes before it"
        )
    if given.dtype != module.weight.dtype:
        kind, weights = (str(dtype).removeprefix("torch.") for dtype in (given.dtype, module.weight.dtype))
        mend = (
            "x.float()" if weights == "float32" else "model.float(), or torch.set_default_dtype before the data is made"
        )
        return ModelError(f"{name}.x is {kind} and the model's weights are {weights}; expected the same: use {mend}")
    return None


def _no_targets(name: str) -> DataError:
    return DataError(f"{name} has no targets; expected a pair (x, y)")


def check_targets(loss_func: LossFunc, preds: Tensor, targets: Tensor, name: str) -> None:
    """Raises DataError where `targets` cannot belong to outputs like `preds` under a cross-entropy loss."""
    if not is_classification(loss_func) or preds.ndim < 2:
        return
    outputs = preds.shape[1]
    if targets.is_floating_point():
        if outputs > 1 and targets.shape[1:2] == (outputs,) and _are_probabilities(targets):
            return
        raise DataError(
            f"{name}.y holds floats (for example {targets.flatten()[0].item():g}); cross-entropy expects whole-number "
            f"class labels (0-{outputs - 1}): use y.long(), or a regression loss such as nn.MSELoss()"
        )
    if targets.ndim == 2 and preds.ndim == 2:
        mend = "y.squeeze(1)" if targets.shape[1] == 1 else "y.argmax(1) if it is one-hot"
        raise DataError(f"{name}.y has shape {tuple(targets.shape)}; cross-entropy expects one label a row: use {mend}")
    labels = targets[targets != getattr(loss_func, "ignore_index", -100)]
    if not labels.numel():
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= outputs:
        found = lowest if lowest < 0 else highest
        raise DataError(
            f"{name}: labels contain {found}; the model has {outputs} classes (0-{outputs - 1}): "
            "give the model's last layer as many outputs as there are classes, or number the labels from 0"
        )


def _are_probabilities(targets: Tensor) -> bool:
    return bool((targets >= 0).all() and torch.allclose(targets.sum(1), torch.ones(()).to(targets), atol=1e-3))


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ModelError(f"the loss function gives {found}; expected a scalar tensor, for example its mean")
