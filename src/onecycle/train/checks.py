"""Checks before a fit, and explanations of what fails in it: do model, loss, metrics, optimizer and data fit?

`check_arguments` and `check_opt_func` look at types. `check_before_fit` runs model, loss and metrics on a batch, and
leaves no trace. `explain` finds the cause of an error that a batch raised.
"""

import reprlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from onecycle.core.checks import unwrap_partial
from onecycle.data.loaders import InMemoryLoader, Loader
from onecycle.errors import DataError, ModelError, OneCycleError, SettingError, warn_user
from onecycle.optim.groups import LayerGroup
from onecycle.train.losses import is_classification, loss_name
from onecycle.train.metrics import Metric, metric_name
from onecycle.train.scores import EpochScores, is_batchwise
from onecycle.train.snapshot import is_lazy_module, restoring
from onecycle.train.step import Forward, LossFunc, Objective, plain_forward

FAILURES = (RuntimeError, IndexError, ValueError, TypeError)  # what torch raises for arguments that do not fit


def check_arguments(model: Any, loss_func: Any, metrics: list[Any]) -> None:
    """Raise SettingError if an argument is not a model, a loss or a metric."""
    if not isinstance(model, nn.Module):
        raise SettingError(f"model is {reprlib.repr(model)}; expected an instance of torch.nn.Module")
    if isinstance(loss_func, type):
        raise SettingError(f"loss_func is the class {loss_func.__name__}; expected {loss_func.__name__}()")
    for metric in metrics:
        if isinstance(metric, type):
            raise SettingError(f"metrics: {metric.__name__} is a class; expected {metric.__name__}(...)")
    for kind, function in (("loss_func", loss_func), *(("metrics", metric) for metric in metrics)):
        if function is not None and not callable(function):
            raise SettingError(f"{kind}: {function!r} is not a function; expected, for example, metrics=accuracy")


def check_opt_func(opt_func: Any, groups: Sequence[LayerGroup]) -> None:
    """Raise SettingError if `opt_func` is not an optimizer class, or cannot train these layer groups."""
    if isinstance(opt_func, Optimizer):
        name = type(opt_func).__name__
        raise SettingError(
            f"opt_func is an optimizer instance; expected its class, opt_func={name}, or with settings "
            f"partial({name}, ...)"
        )
    if not callable(opt_func):
        raise SettingError(
            f"opt_func is {reprlib.repr(opt_func)}; expected an optimizer class: opt_func=torch.optim.Adam"
        )
    optimizer = unwrap_partial(opt_func)
    if optimizer is torch.optim.LBFGS:
        raise SettingError(
            "opt_func: LBFGS computes the loss several times in a step; expected an optimizer that takes one gradient "
            "a step: opt_func=torch.optim.Adam"
        )
    trained = [leaf for group in groups for leaf in group if any(p.requires_grad for p in leaf.parameters())]
    dense = next((leaf for leaf in trained if not getattr(leaf, "sparse", False)), None)
    if optimizer is torch.optim.SparseAdam and dense is not None:
        raise SettingError(
            f"opt_func: SparseAdam takes only sparse gradients, and those of {type(dense).__name__} are dense; "
            "expected opt_func=torch.optim.Adam, or torch.optim.SGD for an Embedding with sparse gradients"
        )


def untrained_parameters(loss_func: LossFunc, model: nn.Module) -> str | None:
    """Return a line that names the trainable parameters of a loss which are not the model's; None if there are none."""
    if not isinstance(loss_func, nn.Module):
        return None
    own = {id(parameter) for parameter in model.parameters()}
    names = [name for name, p in loss_func.named_parameters() if p.requires_grad and id(p) not in own]
    if not names:
        return None
    return (
        f"loss_func: {', '.join(names)} of {loss_name(loss_func)} is not trained, only the model's parameters are; to "
        "train it, make the loss a part of the model: model.loss = loss_func"
    )


def materialise(model: nn.Module, forward: Forward, batches: Callable[[], Iterable[tuple[Any, Any]]] | None) -> None:
    """Give lazy layers their sizes: run the model on the first batch, in eval mode. Nothing else of it remains.

    Raises ModelError if layers stay lazy, or if there are no batches.
    """
    lazy = [module for module in model.modules() if is_lazy_module(module)]
    if not lazy:
        return
    modes = {module: module.training for module in lazy}
    for xb, yb in batches() if batches is not None else ():
        try:
            with torch.no_grad(), restoring(model):
                forward(model.eval(), xb)
        except FAILURES as error:
            raise explain(error, model, None, xb, yb, "train", forward) from error
        finally:
            for module, mode in modes.items():
                module.training = mode
        break
    if any(is_lazy(parameter) for parameter in [*model.parameters(), *model.buffers()]):
        raise ModelError(
            "the model has lazy layers, whose sizes are not known until it is called: call the model on a batch first, "
            "for example learn.model(x)"
        )


def check_before_fit(model: nn.Module, objective: Objective, train_dl: Loader, valid_dl: Loader | None) -> None:
    """Run model, loss and metrics once on the first rows of each set, in eval mode, and check all labels.

    Nothing remains of it: what it changes is restored, the global random generators too. Skipped are loaders that are
    not in memory, and what holds a state that cannot be restored, such as an iterator: their errors come with the batch
    that has them.

    Raises:
        ModelError: If the model cannot take the rows.
        DataError: If the targets do not fit the outputs, or there are no batches.
        SettingError: If the loss or a metric fails.
    """
    if not len(train_dl):
        raise DataError(
            "the training loader has no batches: fewer rows than a batch, and the last short one is dropped"
        )
    sets = (("train", train_dl), ("valid", valid_dl))
    loaders = {name: loader for name, loader in sets if isinstance(loader, InMemoryLoader)}
    if not loaders:
        return None
    with suppress(Exception):  # perhaps what watches the memory is in the way: an array is read-only, say
        return _try_sets(model, objective, loaders)
    return _try_sets(model, objective, loaders, is_trial=False)


def _try_sets(
    model: nn.Module, objective: Objective, loaders: dict[str, InMemoryLoader], is_trial: bool = True
) -> None:
    device = next(iter(loaders.values())).device
    trial = restoring(model, objective.loss_func, generators=device, is_trial=is_trial)
    with torch.no_grad(), trial as snapshot:
        for name, loader in loaders.items() if snapshot.is_complete else ():
            with snapshot.trying():
                _try_batch(model.eval(), objective, loader, name, is_trial)
        if snapshot.memory is not None and (unseen := snapshot.memory.unseen()):
            warn_user(
                f"the trial before the fit changed a tensor of shape {tuple(unseen[0].shape)} in a way that torch does "
                "not show, so that it is not restored: write to tensors with torch's operators, in the same thread",
                RuntimeWarning,
            )


def _try_batch(model: nn.Module, objective: Objective, loader: InMemoryLoader, name: str, is_trial: bool) -> None:
    """Run model, loss and metrics on the first rows, as many as a batch has: a model may be built for that number."""
    loss_func, (xb, yb) = objective.loss_func, loader.peek(loader.batch_size)
    if yb is None:
        raise _no_targets(name)
    try:
        preds = objective.forward(model, xb)
        _check_targets(loss_func, preds, loader.tensors[-1], name)
        _check_loss(loss_func, preds, yb)
        for metric in objective.metrics if name == "valid" else ():
            with restoring(metric, is_trial=is_trial) as snapshot, snapshot.trying():
                if snapshot.is_complete:
                    _check_metric(metric, objective, model, loader, preds, yb)
    except OneCycleError:
        raise
    except FAILURES as error:
        raise explain(error, model, loss_func, xb, yb, name, objective.forward) from error


def explain(
    error: Exception,
    model: nn.Module,
    loss_func: LossFunc | None,
    xb: Any,
    yb: Any,
    name: str,
    forward: Forward = plain_forward,
) -> Exception:
    """Return the error to raise for `error`, which batch (xb, yb) raised: ours if the cause is known, else `error`.

    `loss_func` is None if only the model was run. It is run again here; what that changes is restored.
    """
    if isinstance(error, OneCycleError):
        return error
    if loss_func is not None and yb is None:
        return _no_targets(name)
    with restoring(model, loss_func, generators=torch.device("cpu")):
        return _explain_again(error, model, loss_func, xb, yb, name, forward)


def _explain_again(
    error: Exception, model: nn.Module, loss_func: LossFunc | None, xb: Any, yb: Any, name: str, forward: Forward
) -> Exception:
    calls: list[tuple[nn.Linear, Tensor]] = []  # the Linear layers that the model reaches, and their inputs

    def record_call(linear: nn.Linear, args: tuple[Any, ...]) -> None:
        calls.append((linear, args[0]))

    linears = {module: layer for layer, module in model.named_modules() if isinstance(module, nn.Linear)}
    hooks = [linear.register_forward_pre_hook(record_call) for linear in linears]
    try:
        with torch.no_grad():
            preds = forward(model, xb)
    except FAILURES:
        if not calls:
            return error
        linear, layer_input = calls[-1]
        return _explain_linear(linears[linear], linear, layer_input, xb, name) or error
    finally:
        for hook in hooks:
            hook.remove()
    if loss_func is None or not isinstance(preds, Tensor):
        return error
    try:
        _check_targets(loss_func, preds, yb, name)
        _check_loss(loss_func, preds, yb)
    except OneCycleError as explained:
        return explained
    except FAILURES:
        return error
    return error


def _explain_linear(layer: str, module: nn.Linear, layer_input: Tensor, xb: Any, name: str) -> ModelError | None:
    """Return why the last Linear layer that was reached cannot take its input, or None if it can."""
    x = xb[0] if isinstance(xb, list) else xb
    label = f" ({layer})" if layer else ""
    if layer_input.shape[-1] != module.in_features:
        if layer_input is x:
            return ModelError(
                f"{name}.x has {x.shape[-1]} columns (shape {tuple(x.shape)}); the model's first Linear layer{label} "
                f"takes {module.in_features}: change the layer, or the columns of x"
            )
        return ModelError(
            f"the model's Linear layer{label} takes {module.in_features} columns and gets {layer_input.shape[-1]} "
            f"(shape {tuple(layer_input.shape)}): change the layer, or what comes before it"
        )
    if layer_input.dtype != module.weight.dtype:
        dtype, weights = (str(dtype).removeprefix("torch.") for dtype in (layer_input.dtype, module.weight.dtype))
        fix = (
            "x.float()"
            if weights == "float32"
            else "model.float(), or torch.set_default_dtype before the data is created"
        )
        return ModelError(f"{name}.x is {dtype} and the model's weights are {weights}; expected the same: use {fix}")
    return None


def _no_targets(name: str) -> DataError:
    return DataError(f"{name} has no targets; expected a pair (x, y)")


def _check_targets(loss_func: LossFunc, preds: Any, targets: Tensor, name: str) -> None:
    """Raise DataError if `targets` cannot belong to outputs like `preds` under a cross-entropy loss."""
    if not isinstance(preds, Tensor) or preds.ndim < 2 or not is_classification(loss_func):
        return
    classes = preds.shape[1]
    if targets.is_floating_point():
        if classes > 1 and targets.shape[1:2] == (classes,) and _are_probabilities(targets):
            return
        raise DataError(
            f"{name}.y holds floats (for example {targets.flatten()[0].item():g}); cross-entropy expects whole-number "
            f"class labels (0-{classes - 1}): use y.long(), or a regression loss such as nn.MSELoss()"
        )
    if targets.ndim == 2 and preds.ndim == 2:
        fix = "y.squeeze(1)" if targets.shape[1] == 1 else "y.argmax(1) if it is one-hot"
        raise DataError(f"{name}.y has shape {tuple(targets.shape)}; cross-entropy expects one label a row: use {fix}")
    labels = targets[targets != getattr(loss_func, "ignore_index", -100)]
    if not labels.numel():
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise DataError(
            f"{name}: labels contain {lowest if lowest < 0 else highest}; the model has {classes} classes "
            f"(0-{classes - 1}): give the model's last layer as many outputs as there are classes, or number the "
            "labels from 0"
        )


def _are_probabilities(targets: Tensor) -> bool:
    return bool((targets >= 0).all() and torch.allclose(targets.sum(1), torch.ones(()).to(targets), atol=1e-3))


def _check_loss(loss_func: LossFunc, preds: Any, targets: Any) -> None:
    """Raise SettingError if the loss fails, or if torch warns that it broadcasts; ModelError if it is not a scalar."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a target size", UserWarning)
            loss: Any = loss_func(preds, targets)
    except OneCycleError:
        raise
    except Exception as error:  # whatever a user's function raises
        if not isinstance(preds, Tensor) or not isinstance(targets, Tensor):
            raise
        cause = "" if isinstance(error, UserWarning) else f" ({_first_line(error)})"
        raise SettingError(
            f"the loss {loss_name(loss_func)} does not fit outputs {_describe(preds)} and targets {_describe(targets)}"
            f"{cause}; {_suggest_loss(preds, targets)}"
        ) from error
    if not isinstance(loss, Tensor) or loss.ndim:
        value = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ModelError(f"the loss function returns {value}; expected a scalar tensor, for example its mean")


def _suggest_loss(preds: Tensor, targets: Tensor) -> str:
    if preds.numel() != targets.numel():
        if not targets.is_floating_point() and targets.ndim == preds.ndim - 1:
            return "for class labels use nn.CrossEntropyLoss()"
        return "expected one output per column of y"
    shape = ", ".join(map(str, (-1, *preds.shape[1:])))
    reshaped = f".reshape({shape})" if preds.shape != targets.shape else ""
    fix = reshaped + ("" if targets.is_floating_point() else ".float()")
    return f"expected targets like the outputs: use y{fix}" if fix else "expected a function of (outputs, targets)"


def _check_metric(
    metric: Metric, objective: Objective, model: nn.Module, loader: InMemoryLoader, preds: Any, yb: Any
) -> None:
    """Try a metric on the outputs and targets of a batch, and on all batches if it fails there but sees them all.

    Raises SettingError, or what the library's own metrics raise, if it fails again or does not return a number.
    """
    failure = _metric_failure(metric, objective, [(preds, yb)])
    if failure and not is_batchwise([metric]):  # perhaps these rows are too few
        failure = _metric_failure(metric, objective, ((objective.forward(model, x), y) for x, y in loader.epoch(0)))
    if failure:
        raise failure


def _metric_failure(metric: Metric, objective: Objective, batches: Iterable[tuple[Any, Any]]) -> SettingError | None:
    """Return the error for a metric that fails on these outputs and targets, or None. The library's are raised."""
    preds = yb = None
    scores = EpochScores([metric], objective.inverse_transform)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning about a few rows need not apply to all
            for preds, yb in batches:
                scores.add(torch.zeros(()), preds, yb, 1)
            scores.result()
    except OneCycleError:
        raise
    except Exception as error:  # whatever a user's function raises
        failure = SettingError(
            f'metric "{metric_name(metric)}" fails on outputs {_describe(preds)} and targets {_describe(yb)} '
            f"({_first_line(error)}); expected a function of (outputs, targets) that returns one number"
            f"{_suggest_metrics(yb)}"
        )
        failure.__cause__ = error
        return failure
    return None


def _suggest_metrics(targets: Any) -> str:
    if not isinstance(targets, Tensor):
        return ""
    if not targets.is_floating_point():
        return "; for classes use for example accuracy, f1_score or roc_auc"
    return "; for regression use for example rmse, mae or r2_score, for labels of 0 and 1 f1_score or roc_auc"


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def _first_line(error: Exception) -> str:
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
