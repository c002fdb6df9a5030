"""Does the model fit the data? Errors in the user's words instead of torch's."""

import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from onecycle.core.errors import DataError, ModelError, OneCycleError, SettingError
from onecycle.core.partials import called
from onecycle.data.batches import Batches, InMemoryLoader
from onecycle.optim.groups import LayerGroup
from onecycle.train.callbacks import Callback
from onecycle.train.losses import is_classification
from onecycle.train.metrics import Metric
from onecycle.train.step import LossFunc, plain_forward
from onecycle.train.trial import tried_loss, try_metrics

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
    kind = called(opt_func)
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


def check_before_fit(
    model: nn.Module,
    loss_func: LossFunc,
    train_dl: Batches,
    valid_dl: Batches | None,
    metrics: Sequence[Metric] = (),
    restore: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Try model, loss and metrics on a few rows in eval mode and look at all labels, before anything is changed.

    `restore` makes of predictions and targets what metrics are to see. Raises ModelError for rows the model cannot
    take, DataError for targets its outputs do not fit, and where there are no batches, SettingError for a loss or a
    metric that fails. Loaders that are not in memory are not looked at; their errors come with the batch that has them.
    """
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
                _check_loss(tried_loss(loss_func, preds, yb))
                if loader is valid_dl:
                    try_metrics(metrics, model, loader, restore)
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
        _check_loss(tried_loss(loss_func, preds, yb))
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
