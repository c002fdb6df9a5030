"""The lesson's learning rate, momentum and weight decay on top of any torch optimizer."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RMSprop
from torch.optim.optimizer import ParamsT

from onecycle.core.checks import unwrap_partial
from onecycle.core.process import without_compiler
from onecycle.errors import SettingError, pluralize
from onecycle.optim.fused_adam import FusedAdam
from onecycle.optim.groups import BATCH_NORMS, LayerGroup, LayerGroups, owner_of

OptFunc: TypeAlias = Callable[..., Optimizer]
"""Makes a torch optimizer from parameter groups: an optimizer class, or a function or partial with more settings."""

DECOUPLED_WD = "decoupled_wd"  # of a parameter group: the decay before the step that `true_wd` means
_DECOUPLED = tuple(getattr(torch.optim, name) for name in ("Adafactor", "Muon") if hasattr(torch.optim, name))
_SPARSE = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam)
_TORCH_OPTIMIZERS = {each for each in vars(torch.optim).values() if isinstance(each, type)} - {Optimizer}
_PLAIN = (bool, int, float, str, type(None))
_SCALARS = ("step", "eta", "mu", "mu_product")  # of a state: tensors without dimensions
_STATES = {  # of a state: tensors for the kernels of torch.optim
    *_SCALARS,
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta"),
    *("sum", "ax", "prev", "step_size", "row_var", "col_var", "variance"),
}
_KERNELS = {"fused", "foreach", "capturable", "differentiable"}
_RATES = {"lr", "weight_decay", DECOUPLED_WD, "decoupled_weight_decay"}  # settings of the fit
_MAX_NAMES = 4  # in a message
_NORMS = (*BATCH_NORMS, nn.LayerNorm)
_WITH_BIAS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def AdamW(params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), **settings: Any) -> Adam:  # noqa: N802 -- the lesson's name for it
    """Make the lesson's optimizer: torch.optim.Adam with betas (0.9, 0.99).

    The Learner decouples the weight decay (`true_wd=True`), which makes Adam AdamW (https://arxiv.org/abs/1711.05101).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate; a schedule replaces it.
        betas: Coefficients of the running averages; a schedule replaces the first one by its momentum.
        **settings: Further settings of torch.optim.Adam.

    Returns:
        The optimizer.

    Example:
        >>> Learner(data, model, opt_func=partial(AdamW, eps=1e-6))
    """
    return Adam(params, lr=lr, betas=betas, **settings)


def optimizer_class(opt_func: Any) -> Any:
    """Return the optimizer class that `opt_func` creates, or the function itself if it is a user's."""
    function = unwrap_partial(opt_func)
    return Adam if function is AdamW else function


class GroupedOptimizer:
    """A torch optimizer over layer groups, with the lesson's learning rate, momentum and weight decay.

    Each layer group makes two parameter groups: the second holds the parameters of BatchNorm and LayerNorm and the
    biases of Linear and Conv layers, and is decayed only with `bn_wd`. With `true_wd` the decay is `p *= 1 - wd * lr`
    before the step, for parameters that have a gradient; without it, it is L2 through the optimizer.

    Args:
        opt_func: Makes the torch optimizer.
        groups: The layer groups.
        true_wd: Decouple the weight decay from the gradient.
        bn_wd: Decay normalisation layers and biases too.

    Attributes:
        torch_opt: The torch optimizer.
        groups: Its parameter groups. `lr`, and with a schedule of it the momentum, is set before each step.
        layers: The layer groups.
    """

    def __init__(
        self, opt_func: OptFunc, groups: Sequence[LayerGroup], true_wd: bool = True, bn_wd: bool = True
    ) -> None:
        self.layers = groups if isinstance(groups, LayerGroups) else LayerGroups(groups)
        parameters = _trained_halves(self.layers)
        name = getattr(optimizer_class(opt_func), "__name__", repr(opt_func))
        try:
            with without_compiler():
                self.torch_opt = opt_func([{"params": half} for half in parameters], **_fused(opt_func, groups))
        except ValueError as error:
            raise SettingError(
                f"opt_func: {name} does not take the model's parameters or its settings: {error}"
            ) from error
        self.opt_func, self.true_wd, self.bn_wd = opt_func, true_wd, bn_wd
        self.groups: list[dict[str, Any]] = self.torch_opt.param_groups
        first = self.groups[0]
        # Adam's kernel includes the decoupled decay, at the same point: p *= 1 - lr * wd before the update
        self._decays_itself = true_wd and "decoupled_weight_decay" in first
        self._made_with = {name: value for name, value in vars(self.torch_opt).items() if isinstance(value, _PLAIN)}
        self._has_l2 = "weight_decay" in first and not isinstance(self.torch_opt, _DECOUPLED)
        self._fused: FusedAdam | None = None
        self._mom_key = next((key for key in ("momentum", "betas") if key in first), None)
        self._resting: dict[nn.Parameter, dict[str, Any]] = {}  # state of parameters that are frozen for now
        self._trainable: list[int] = []  # ids of the model's trainable parameters when `follow` last looked
        self._names: dict[int, str] = {}
        self._unshown: list[str] = []  # changes that `follow` has not returned yet
        self._noted: list[tuple[Any, Any]] = []  # rates at the end of the last step
        for group in self.groups:
            group["lr"] = 0.0
            if "decoupled_weight_decay" in group:
                group["decoupled_weight_decay"] = true_wd

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups, under the name that torch's optimizers have for them."""
        return self.groups

    @property
    def lr(self) -> float:
        """The learning rate of the last layer group."""
        return float(self.groups[-1]["lr"])

    @property
    def momentum(self) -> float | None:
        """The momentum of the last layer group (Adam's first beta), or None if the optimizer has none."""
        value = self._momentum_of(self.groups[-1])
        return None if value is None else float(value)

    def _momentum_of(self, group: dict[str, Any]) -> Any:
        return None if self._mom_key is None else group["betas"][0] if self._mom_key == "betas" else group["momentum"]

    def follow(self, model: nn.Module, is_shown: bool = True) -> str | None:
        """Train what is trainable in `model` now; return a line that says what has changed, or None.

        New parameters join the group of their layers. Those that stay keep their state, also while they are frozen.
        Unless the line is shown, the next call returns it too. Raises SettingError if nothing is trainable.
        """
        trainable = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
        if trainable != self._trainable:
            self._follow(model, trainable)
        if not self._unshown or not is_shown:
            return None
        change, self._unshown = f"optimizer: {'; '.join(self._unshown)}", []
        return change

    def _follow(self, model: nn.Module, trainable: list[int]) -> None:
        self.layers.follow(model)
        halves, state = _trained_halves(self.layers), self.torch_opt.state
        before = {id(p): p for group in self.groups for p in group["params"]}
        after, in_model = {id(p): p for half in halves for p in half}, {id(p) for p in model.parameters()}
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for key in before.keys() - after.keys():
            self._resting[before[key]] = state.pop(before[key], {})
        self._resting = {p: entry for p, entry in self._resting.items() if id(p) in in_model}
        for parameter in [p for p in self._resting if id(p) in after]:
            if entry := self._resting.pop(parameter):
                state[parameter] = entry
        for group, half in zip(self.groups, halves, strict=True):
            group["params"][:] = half
        changes = [
            ("takes in", [names[key] for key in after if key not in before]),
            ("leaves out", [self._names.get(key) or names.get(key, "?") for key in before if key not in after]),
        ]
        self._trainable, self._names, self._fused = trainable, names, None
        self._unshown += [f"{verb} {_enumerate(each)}" for verb, each in changes if each]

    def set_wd(self, wd: float | Sequence[float]) -> None:
        """Set the weight decay: one number, or one for each layer group."""
        count, value = len(self.groups) // 2, cast(Any, wd)
        try:
            each = [float(value)] * count if isinstance(value, Real) else [float(decay) for decay in value]
        except (TypeError, ValueError):
            each = []
        if len(each) != count or any(not 0 <= decay < float("inf") for decay in each):
            raise SettingError(
                f"wd is {wd!r}; expected a finite number of at least 0, or {count} of them, one a layer group"
            )
        decays = [decay for weights in each for decay in (weights, weights if self.bn_wd else 0.0)]
        through_opt = self._decays_itself or not self.true_wd
        if any(decays) and not self.true_wd and not self._has_l2:
            raise SettingError(
                f"true_wd=False: {type(self.torch_opt).__name__} has no L2 regularisation; expected true_wd=True, "
                "wd=0, or another opt_func"
            )
        for group, decay in zip(self.groups, decays, strict=True):
            group["weight_decay"], group[DECOUPLED_WD] = (decay, 0.0) if through_opt else (0.0, decay)

    def set_rates(self, lrs: Sequence[float], mom: float | None) -> None:
        """Set the learning rate of each layer group, and the momentum of all groups unless it is None."""
        groups = self.groups
        if 2 * len(lrs) != len(groups):
            raise SettingError(
                f"the schedule gives {pluralize(len(lrs), 'learning rate')} for "
                f"{pluralize(len(groups) // 2, 'layer group')}; expected one for each"
            )
        for i, lr in enumerate(lrs):
            groups[2 * i]["lr"] = groups[2 * i + 1]["lr"] = lr
        if mom is None or self._mom_key is None:
            return
        if self._mom_key == "momentum":
            for group in groups:
                group["momentum"] = mom
        else:
            for group in groups:
                group["betas"] = (mom, *group["betas"][1:])

    def step(self) -> None:
        """Decay the weights (`true_wd`) and take one optimizer step."""
        if not self.is_fused():
            self._fused = FusedAdam.create_for(self.torch_opt)
        try:
            if self._fused is not None and self._fused.step():
                return
            self._add_momentum_buffers()
            self._decay_weights()
            self.torch_opt.step()
        except (RuntimeError, ValueError) as error:
            raise self._explain(error) from error
        self._fused = None  # torch.optim may have created state for parameters that had none

    def _add_momentum_buffers(self) -> None:
        """Let RMSprop's momentum begin at 0 if the steps so far had none: it creates the buffers only at its first."""
        if not isinstance(self.torch_opt, RMSprop):
            return
        for group in self.groups:
            for parameter in group["params"] if group["momentum"] else ():
                if (state := self.torch_opt.state.get(parameter)) and "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)

    def _explain(self, error: RuntimeError | ValueError) -> Exception:
        """Return the error to raise for one of torch.optim: ours if gradients are of a kind that it cannot use."""
        name, decays = type(self.torch_opt).__name__, any(group["weight_decay"] for group in self.groups)
        for parameter in (p for group in self.groups for p in group["params"] if p.grad is not None):
            where, grad = self._names.get(id(parameter), "a parameter"), parameter.grad
            if name == "Muon" and parameter.ndim != 2:
                return SettingError(
                    f"{where} has {pluralize(parameter.ndim, 'dimension')}, and Muon trains matrices only; freeze it "
                    "(requires_grad_(False)), or use another opt_func"
                )
            if grad.layout != torch.strided:
                fix = (
                    "true_wd=True"
                    if isinstance(self.torch_opt, _SPARSE) and decays
                    else ("an Embedding with sparse=False, or opt_func=torch.optim.SGD")
                )
                return SettingError(
                    f"{where}: {name} cannot use its sparse gradients ({_first_line(error)}); use {fix}"
                )
            if parameter.is_complex():
                return SettingError(
                    f"{where} is {str(parameter.dtype).removeprefix('torch.')}, which {name} cannot train "
                    f"({_first_line(error)}); use two real parameters and torch.complex, or opt_func=torch.optim.Adam"
                )
        return error

    def has_state(self) -> bool:
        """Whether it has taken a step."""
        return bool(self.torch_opt.state)

    def is_fused(self) -> bool:
        """Whether Adam's kernel is called directly."""
        return self._fused is not None and self._fused.is_current()

    def decay_before_step(self, group: int) -> float:
        """The decay applied to a parameter group before the step; 0 if the optimizer applies it."""
        return float(self.groups[group].get(DECOUPLED_WD, 0.0))

    @torch.no_grad()
    def _decay_weights(self) -> None:
        for i, group in enumerate(self.groups):
            wd, updated = self.decay_before_step(i), [p for p in group["params"] if p.grad is not None]
            if updated and wd:
                torch._foreach_mul_(updated, 1 - wd * group["lr"])  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself does it

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        for group in self.groups:
            for parameter in group["params"]:
                parameter.grad = None

    def note_rates(self) -> None:
        """Note the rates at the end of a step, for `check_rates`."""
        self._noted = self._rates()

    def _rates(self) -> list[tuple[Any, Any]]:
        return [(group["lr"], self._momentum_of(group)) for group in self.groups]

    def check_rates(self, mom_is_set: bool) -> None:
        """Raise SettingError if a rate was written since `note_rates`, which the schedule would overwrite.

        Also if torch has a scheduler for this optimizer. `mom_is_set` says whether the schedule sets the momentum.
        """
        wrote_rates = any(
            lr != noted_lr or (mom_is_set and mom != noted_mom)
            for (lr, mom), (noted_lr, noted_mom) in zip(self._rates(), self._noted, strict=False)
        )
        if wrote_rates or any("initial_lr" in group for group in self.groups):  # which a scheduler of torch leaves
            raise SettingError(
                "a callback or a torch.optim.lr_scheduler set the learning rate or momentum between two steps; the "
                "schedule of the fit sets both before each step: replace fit.schedule instead (at the beginning or end "
                'of an epoch), or set group["lr"] of each group in fit.opt.groups in on_batch_begin, for that step'
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the torch optimizer: moments and hyper-parameters."""
        with without_compiler():
            return self.torch_opt.state_dict()

    def state_shape(self, key: str, parameter: nn.Parameter) -> tuple[int, ...] | None:
        """Return the shape that a tensor of the state of `parameter` has, or None if it may have any."""
        if not self._is_of_torch(key):
            return None  # a user's
        shape = tuple(parameter.shape)
        factored = {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, *shape[-1:])}
        return () if key in _SCALARS else factored.get(key, shape)

    def _is_of_torch(self, key: str) -> bool:
        """Whether a state of this name is for the kernels of torch.optim."""
        kinds = type(self.torch_opt).__mro__
        return kinds[0] in _TORCH_OPTIMIZERS or (key in _STATES and any(base in _TORCH_OPTIMIZERS for base in kinds))

    def own_settings(self) -> list[list[str]]:
        """Return for each parameter group the settings that changed since it was made, other than rates and kernel.

        So schedule-free methods, Prodigy and D-Adaptation keep what they have learned.
        """
        passed, defaults = {"params", self._mom_key, *_RATES, *_KERNELS}, self.torch_opt.defaults
        return [
            [
                key
                for key in group
                if key not in passed and not (key in defaults and _is_same(group[key], defaults[key]))
            ]
            for group in self.groups
        ]

    def attributes_as_made(self) -> list[str]:
        """Return which attributes of the torch optimizer, numbers and texts, are as they were when it was made."""
        now = vars(self.torch_opt)
        return [name for name, value in self._made_with.items() if name in now and _is_same(now[name], value)]

    def load_moments(self, state: dict[str, Any], settings: bool = False) -> None:
        """Load the moments and momentum of a saved state, and keep all other settings (decay, kernel) as they are.

        With `settings`, load these too, and keep only the choice of the kernel. The state is that of `state_dict` with
        parameters as keys, the settings that each group changed ("own"), and that of frozen parameters ("resting").
        """
        for group, saved, own in zip(self.groups, state["param_groups"], state["own"], strict=True):
            kept = (_KERNELS if settings else set(group) - {self._mom_key, *own}) & set(group)
            group.update({name: value for name, value in saved.items() if name != "params" and name not in kept})
        group_of = {id(parameter): group for group in self.groups for parameter in group["params"]}
        self.torch_opt.state.clear()
        for key, entry in state["state"].items():
            group = group_of.get(id(key))
            self.torch_opt.state[key] = entry if group is None else self._placed(key, entry, group)
        self._resting = {p: self._placed(p, entry, self.groups[0]) for p, entry in state["resting"].items()}
        self._fused = None  # it holds the tensors of the old state

    def _placed(self, parameter: Tensor, entry: Any, group: dict[str, Any]) -> Any:
        """Return the state of a parameter as the kernels of torch.optim take it; a user's as it is."""
        if not isinstance(entry, dict):
            return entry
        placed: dict[Any, Any] = {**entry}
        for key, value in placed.items():
            if not isinstance(value, Tensor) or not self._is_of_torch(key):
                continue
            if key == "step":
                placed[key] = value.to(parameter.device if group.get("fused") or group.get("capturable") else "cpu")
            elif value.shape == parameter.shape and (value.dtype, value.stride()) != (
                parameter.dtype,
                parameter.stride(),
            ):
                placed[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        return placed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, exactly: torch.optim's own would round it to the parameters' dtype."""
        parameters = dict(enumerate(parameter for group in self.groups for parameter in group["params"]))
        self.torch_opt.state.clear()
        for key, entry in state["state"].items():
            self.torch_opt.state[parameters.get(key, key)] = entry
        for group, saved in zip(self.groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        self._fused = None  # it holds the tensors of the old state

    def resting_state(self) -> dict[str, dict[str, Any]]:
        """Return the state of parameters that it has trained and that are frozen now, by their names."""
        return {self._names[id(parameter)]: entry for parameter, entry in self._resting.items()}


def _trained_halves(groups: Sequence[LayerGroup]) -> list[list[nn.Parameter]]:
    taken: set[int] = set()
    halves = [half for group in groups for half in _halves(group, taken)]
    if not any(halves):
        raise SettingError("the model has no trainable parameters; unfreeze a layer group first")
    return halves


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return isinstance(value, Tensor) and isinstance(other, Tensor) and torch.equal(value, other)
    return value is other or (type(value) is type(other) and repr(value) == repr(other))


def _enumerate(names: list[str]) -> str:
    more = f" and {pluralize(len(names) - _MAX_NAMES, 'more parameter')}" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0]


def _halves(group: LayerGroup, taken: set[int]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split a layer group's trainable parameters into those that are always decayed, and norms and biases.

    `taken` holds the ids of the parameters that are in a group already, so that tied weights are in one only.
    """
    weights: list[nn.Parameter] = []
    norms_and_biases: list[nn.Parameter] = []
    for leaf in group:
        owner = owner_of(leaf)
        bias = dict(owner.named_parameters(recurse=False)).get("bias") if isinstance(owner, _WITH_BIAS) else None
        for parameter in leaf.parameters():
            if parameter.requires_grad and id(parameter) not in taken:
                taken.add(id(parameter))
                is_norm_or_bias = isinstance(owner, _NORMS) or parameter is bias
                (norms_and_biases if is_norm_or_bias else weights).append(parameter)
    return weights, norms_and_biases


def _fused(opt_func: OptFunc, groups: Sequence[LayerGroup]) -> dict[str, bool]:
    """Ask for Adam's fused kernel, unless the user's settings or the model forbid it.

    Only Adam's: torch's fused SGD does not accept a parameter whose first gradient comes late.
    """
    settings: dict[str, Any] = opt_func.keywords if isinstance(opt_func, partial) else {}
    is_adam = optimizer_class(opt_func) in (Adam, torch.optim.AdamW)
    is_decided = settings.keys() & _KERNELS
    is_float = all(
        parameter.is_floating_point() for group in groups for leaf in group for parameter in leaf.parameters()
    )
    return {"fused": True} if is_adam and is_float and not is_decided else {}
