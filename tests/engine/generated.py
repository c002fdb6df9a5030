"""Models, losses, callbacks and settings by number: `source(number)` is the text of the module of a case.

The module is written to a file and imported, as a user's model is. Every case with the same number is the same.

    python tests/engine/generated.py 17            the text of case 17
"""

import sys
from pathlib import Path
from random import Random
from textwrap import indent

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from engine.generated_layers import Network, network
from engine.generated_parts import CALLBACKS, INPUTS, LIBRARY_CALLBACKS, PARTS, Part, read_part

HEADER = """
import argparse, array, contextlib, contextvars, copy, dataclasses, enum, functools, itertools, logging, math, operator
import os, random, sys, threading, types, warnings, weakref
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onecycle
import torch
import torch.nn.utils.prune
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
"""

FAMILIES = {"table": 8, "signal": 2, "image": 3, "volume": 1, "sequence": 4, "tokens": 2, "two": 1}

DATA = {
    "table": "torch.randn(ROWS, 8, generator=g)",
    "signal": "torch.randn(ROWS, 2, 10, generator=g)",
    "image": "torch.randn(ROWS, 2, 6, 6, generator=g)",
    "volume": "torch.randn(ROWS, 1, 4, 4, 4, generator=g)",
    "sequence": "torch.randn(ROWS, 5, 4, generator=g)",
    "tokens": "torch.randint(0, 12, (ROWS, 5), generator=g)",
    "two": "torch.randn(ROWS, 8, generator=g)",
}

TARGETS = {
    "classes": "torch.randint(0, 3, (ROWS,), generator=g)",
    "regression": "torch.randn(ROWS, 1, generator=g)",
    "multilabel": "torch.randint(0, 2, (ROWS, 3), generator=g).float()",
}

LOSSES = {
    "classes": [
        *("None", "nn.CrossEntropyLoss()", "nn.CrossEntropyLoss(label_smoothing=0.1)", "F.cross_entropy"),
        *("nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))", "nn.CrossEntropyLoss(reduction='sum')"),
        *("partial(F.cross_entropy, label_smoothing=0.2)", "nn.MultiMarginLoss()", "F.multi_margin_loss"),
        *("nn.CrossEntropyLoss(ignore_index=2)", "partial(F.multi_margin_loss, p=2)"),
    ],
    "regression": [
        *("None", "nn.MSELoss()", "nn.L1Loss()", "nn.SmoothL1Loss(beta=0.5)", "nn.HuberLoss()"),
        *("F.l1_loss", "partial(F.huber_loss, delta=0.5)", "nn.PoissonNLLLoss()"),
    ],
    "multilabel": [
        *("None", "nn.BCEWithLogitsLoss()", "F.binary_cross_entropy_with_logits", "nn.MultiLabelSoftMarginLoss()"),
        *("nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0]))", "nn.SoftMarginLoss()"),
    ],
}
PLAIN = {
    "classes": "F.cross_entropy(p, y)",
    "regression": "F.mse_loss(p.view_as(y), y)",
    "multilabel": "F.binary_cross_entropy_with_logits(p, y)",
}
OWN_LOSSES = [
    "def loss(p, y):\n    y.mul_(1)\n    return PLAIN\nLOSS = loss",
    "def loss(p, y):\n    p = p.mul_(0.9)\n    return PLAIN\nLOSS = loss",
    "LOSS = lambda p, y: PLAIN",
    "def loss(p, y):\n    return PLAIN + 0.01 * p.pow(2).mean()\nLOSS = loss",
    "WEIGHT = 1.0\ndef loss(p, y):\n    return WEIGHT * PLAIN\nLOSS = loss",
    "def loss(p, y):\n    return PLAIN + 0.001 * sum(w.pow(2).sum() for w in MODEL.parameters())\nLOSS = loss",
    "def loss(p, y):\n    return PLAIN + 0.001 * MODEL.head.weight.abs().sum()\nLOSS = loss",
    "def make_loss(weight):\n    def loss(p, y):\n        return weight * PLAIN\n    return loss\nLOSS = make_loss(0.5)",
    "def make_loss():\n    calls = 0\n    def loss(p, y):\n        nonlocal calls\n        calls += 1\n        return (1 + 0.01 * calls) * PLAIN\n    return loss\nLOSS = make_loss()",
    "CALLS = []\ndef loss(p, y):\n    CALLS.append(1)\n    return PLAIN\nLOSS = loss",
    "class Loss:\n    def __init__(self):\n        self.calls = 0\n    def __call__(self, p, y):\n        self.calls += 1\n        return PLAIN / (1 + 0.01 * self.calls)\nLOSS = Loss()",
    "class Loss:\n    def __init__(self, beta):\n        self.beta = beta\n    def __call__(self, p, y):\n        return PLAIN + self.beta * p.abs().mean()\nLOSS = Loss(0.1)",
    "class Loss(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.register_buffer('mean', torch.zeros(()))\n    def forward(self, p, y):\n        self.mean = 0.9 * self.mean + 0.1 * p.detach().mean()\n        return PLAIN + (p.mean() - self.mean).pow(2)\nLOSS = Loss()",
    "class Loss(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.register_buffer('n', torch.zeros(()))\n    def forward(self, p, y):\n        self.n += 1\n        return PLAIN\nLOSS = Loss()",
    "class Loss(nn.Module):\n    calls = 0\n    def forward(self, p, y):\n        self.calls += 1\n        return PLAIN\nLOSS = Loss()",
    "class Loss(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.base = nn.MSELoss()\n        self.beta = 0.1\n    def forward(self, p, y):\n        return PLAIN + self.beta * self.base(p, p.detach().roll(1, 0))\nLOSS = Loss()",
    "def loss(p, y):\n    return PLAIN + 0.1 * (torch.rand_like(p) * p).mean()\nLOSS = loss",
    "def loss(p, y):\n    return PLAIN * (1 + 0.1 * random.random())\nLOSS = loss",
    "def loss(p, y):\n    return PLAIN * (1 + 0.1 * np.random.rand())\nLOSS = loss",
    "def loss(p, y):\n    value = PLAIN\n    return value if value > 0.5 else value * 2\nLOSS = loss",
    "def loss(p, y):\n    value = PLAIN\n    print('case: loss')\n    return value\nLOSS = loss",
    "def loss(p, y):\n    kept = (y > 0).reshape(-1)\n    return PLAIN + 0.1 * p[kept[: len(p)]].sum() / len(p)\nLOSS = loss",
    "SEEN = []\ndef loss(p, y):\n    value = PLAIN\n    SEEN.append(value.item())\n    return value\nLOSS = loss",
    "SEEN = {}\ndef loss(p, y):\n    SEEN['last'] = PLAIN\n    return SEEN['last']\nLOSS = loss",
    "def loss(p, y):\n    return PLAIN + (0.1 if MODEL.training else 0.2) * p.mean()\nLOSS = loss",
    "def loss(p, y):\n    return PLAIN + (0.1 if torch.is_grad_enabled() else 0.2) * p.mean()\nLOSS = loss",
    "def loss(p, y, *, scale=0.5):\n    return PLAIN * scale\nLOSS = partial(loss, scale=0.7)",
    "class Losses:\n    weight = 0.5\n    @classmethod\n    def weighted(cls, p, y):\n        return PLAIN * cls.weight\n    @staticmethod\n    def plain(p, y):\n        return PLAIN\nLOSS = Losses.weighted",
    "class Losses:\n    weight = 0.5\n    def weighted(self, p, y):\n        return PLAIN * self.weight\nLOSS = Losses().weighted",
    "WEIGHTS = torch.tensor([0.5])\ndef loss(p, y):\n    return PLAIN * WEIGHTS.sum()\nLOSS = loss",
    "def loss(p, y):\n    t = torch.exp(-PLAIN)\n    return (1 - t) ** 2 * PLAIN\nLOSS = loss",
    "def loss(p, y):\n    first, second = p.chunk(2, dim=0) if len(p) % 2 == 0 else (p, p)\n    return PLAIN + 0.1 * F.mse_loss(first, second.detach())\nLOSS = loss",
    "def loss(p, y):\n    try:\n        return PLAIN + MODEL.missing\n    except AttributeError:\n        return PLAIN\nLOSS = loss",
    "HISTORY = deque(maxlen=5)\ndef loss(p, y):\n    value = PLAIN\n    HISTORY.append(value.detach())\n    return value / (1 + torch.stack(list(HISTORY)).mean())\nLOSS = loss",
]
LOSS_CALLBACKS = [
    (
        "class Loss(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.beta = 0.0\n    def forward(self, p, y):\n        return PLAIN + self.beta * p.pow(2).mean()\nLOSS = Loss()",
        "def on_batch_begin(self, fit):\n    LOSS.beta = min(1.0, fit.iteration / 30)",
    ),
    (
        "class Loss:\n    beta = 0.0\n    def __call__(self, p, y):\n        return PLAIN + self.beta * p.pow(2).mean()\nLOSS = Loss()",
        "def on_batch_end(self, fit):\n    Loss.beta = min(1.0, fit.iteration / 30)",
    ),
    (
        "BETA = 0.0\ndef loss(p, y):\n    return PLAIN + BETA * p.pow(2).mean()\nLOSS = loss",
        "def on_batch_begin(self, fit):\n    global BETA\n    BETA = min(1.0, fit.iteration / 30)",
    ),
    (
        "LOSS = nn.CrossEntropyLoss() if TASK == 'classes' else nn.SmoothL1Loss() if TASK == 'regression' else nn.BCEWithLogitsLoss()",
        "def on_epoch_end(self, fit):\n    LOSS.label_smoothing = 0.3\n    LOSS.beta = 0.2\n    LOSS.reduction = 'sum'",
    ),
    (
        "WEIGHT = torch.ones(())\ndef loss(p, y):\n    return WEIGHT * PLAIN\nLOSS = loss",
        "def on_batch_end(self, fit):\n    WEIGHT.mul_(0.99)",
    ),
    (
        "def loss(p, y, beta=0.0):\n    return PLAIN + beta * p.pow(2).mean()\nLOSS = partial(loss, beta=0.0)",
        "def on_epoch_begin(self, fit):\n    LOSS.keywords['beta'] = 0.1 * fit.epoch",
    ),
]

OPTIMIZERS = [
    *(
        "None",
        "None",
        "torch.optim.Adam",
        "torch.optim.AdamW",
        "torch.optim.SGD",
        "partial(torch.optim.SGD, momentum=0.9)",
    ),
    *("partial(torch.optim.SGD, momentum=0.9, nesterov=True)", "partial(torch.optim.SGD, momentum=0.5, dampening=0.1)"),
    *("partial(torch.optim.SGD, weight_decay=0.01)", "partial(torch.optim.Adam, amsgrad=True)", "torch.optim.Adagrad"),
    *("torch.optim.RMSprop", "partial(torch.optim.RMSprop, momentum=0.9, centered=True)", "torch.optim.Adadelta"),
    *("torch.optim.Adamax", "torch.optim.NAdam", "torch.optim.RAdam", "torch.optim.ASGD", "torch.optim.Rprop"),
    *("partial(torch.optim.Adam, betas=(0.8, 0.95), eps=1e-6)", "partial(torch.optim.AdamW, foreach=False)"),
    *("partial(torch.optim.SGD, maximize=True)", "OwnOptimizer"),
]
STANDARD_OPTIMIZERS = [*OPTIMIZERS[:6], "torch.optim.RMSprop", "torch.optim.Adagrad", "torch.optim.NAdam"]
OWN_OPTIMIZER = """
class OwnOptimizer(torch.optim.Optimizer):
    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad.sign(), alpha=-group["lr"])
"""

METRICS = {
    "classes": ["None", "onecycle.accuracy", "[onecycle.accuracy, onecycle.error_rate]", "own_metric"],
    "regression": ["None", "onecycle.rmse", "own_metric"],
    "multilabel": ["None", "own_metric"],
}
OWN_METRICS = [
    "def own_metric(p, y):\n    return p.float().mean()",
    "METRIC_CALLS = []\ndef own_metric(p, y):\n    METRIC_CALLS.append(1)\n    return p.float().std()",
    "def own_metric(p, y):\n    return float(p.float().abs().max())",
    "def own_metric(p, y):\n    return p.float().mean() + random.random()",
    "def own_metric(p, y):\n    return p.float().mean() + torch.rand(())",
    "METRIC_SCALE = [1.0]\ndef own_metric(p, y):\n    METRIC_SCALE[0] *= 0.9\n    return p.float().mean() * METRIC_SCALE[0]",
    "def own_metric(p, y):\n    return torch.linalg.svdvals(p.float()).sum() if p.dim() == 2 else p.norm()",
]

BETWEEN = [
    "pass",
    "pass",
    "pass",
    "learn.model.head.weight.requires_grad_(False)",
    "learn.model.head = nn.Linear(learn.model.head.in_features, learn.model.head.out_features)",
    "learn.model.head.register_forward_hook(lambda module, args, output: output * 0.5)",
    "learn.model.load_state_dict({name: value * 0.9 for name, value in learn.model.state_dict().items()})",
    "learn.lr_find(num_it=8)",
    "learn.validate('train')",
    "learn.model.eval()",
    "[p.data.mul_(0.9) for p in learn.model.parameters()]",
    "learn.loss_func = (lambda loss: lambda p, y: 0.5 * loss(p, y))(learn.loss_func)",
    "learn.opt = None",
    "learn.metrics = []",
    "learn.model = copy.deepcopy(learn.model)",
    "learn.freeze() if len(learn.layer_groups) > 1 else None",
    "learn.wd = 0.2",
    "[module.register_buffer('late', torch.zeros(2)) for module in [learn.model]]",
    "torch.manual_seed(4); random.seed(4); np.random.seed(4)",
]


def is_standard(number: int) -> bool:
    """Whether a case consists of standard layers only."""
    return Random(f"kind {number}").random() < 0.3


def _class(
    name: str, bases: str, klass: str, init: list[str], forward: list[str], arguments: str = "h", base_init: bool = True
) -> str:
    lines = [f"class {name}({bases}):"]
    lines += [indent(klass.rstrip("\n"), "    ")] if klass.strip() else []
    lines += ["    def __init__(self):", *(["        super().__init__()"] if base_init else [])]
    lines += [indent(text.rstrip("\n"), "        ") for text in init if text.strip()] or ["        pass"]
    lines += [f"    def {'forward' if base_init else '__call__'}(self, {arguments}):"]
    lines += [indent(text.rstrip("\n"), "        ") for text in forward if text.strip()]
    return "\n".join(lines) + "\n"


def _gated(random: Random, part: Part) -> str:
    """The forward lines, in some cases for training or validation only."""
    kind = random.random()
    if part.kind in ("state", "random", "read") and part.forward and kind < 0.3:
        return f"if {'self.training' if kind < 0.22 else 'not self.training'}:\n" + indent(part.forward, "    ")
    return part.forward


def source(number: int) -> str:
    """The text of the module of a case."""
    random = Random(f"case {number}")
    standard = is_standard(number)
    family = random.choices(list(FAMILIES), list(FAMILIES.values()))[0]
    task = random.choices(["classes", "regression", "multilabel"], [7, 2, 1])[0]
    outputs = 1 if task == "regression" else 3
    net = network(random, family)
    parts: list[tuple[str, Part]] = []
    if not standard:
        for _ in range(random.choices([0, 1, 2, 3], [2, 10, 4, 1])[0]):
            part = random.choices([random.choice(PARTS), read_part(random), random.choice(CALLBACKS)], [5, 4, 2])[0]
            parts.append((random.choice(["own", "nested", "nested", "method", "mixin", "deep", "loss", "base"]), part))
    blocks, init, klass, bases, calls, loss_text, callbacks = [], [], [], [], [], "", []
    for i, (how, given) in enumerate(parts):
        part = given.numbered(i, outputs if how == "loss" else net.width, "fit.model")
        if how == "loss" and (
            loss_text or "self.training" in part.forward or "__getattr__" in part.klass or "BatchNorm" in part.init
        ):
            how, part = "own", given.numbered(i, net.width, "fit.model")
        blocks.append(part.module)
        lines = _gated(random, part) if how != "loss" else part.forward
        if how in ("own", "method") and part.bases:
            bases.append(part.bases.rstrip(", "))
        if how == "own":
            init.append(part.init), klass.append(part.klass), calls.append(lines)
        elif how == "method":
            init.append(part.init)
            klass.append(part.klass + f"def part{i}(self, h):\n" + indent(lines, "    ") + "    return h\n")
            calls.append(f"h = self.part{i}(h)\n")
        elif how in ("mixin", "base"):
            body = (
                f"def init{i}(self):\n"
                + indent(part.init or "pass\n", "    ")
                + f"def part{i}(self, h):\n"
                + indent(lines, "    ")
                + "    return h\n"
            )
            own_bases = (part.bases + ("nn.Module" if how == "base" else "")).rstrip(", ")
            blocks.append(
                f"class Mixin{i}{f'({own_bases})' if own_bases else ''}:\n" + indent(part.klass + body, "    ")
            )
            bases.append(f"Mixin{i}")
            init.append(f"self.init{i}()\n"), calls.append(f"h = self.part{i}(h)\n")
        elif how in ("nested", "deep"):
            part = given.numbered(i, net.width, f"fit.model.part{i}" + ("['inner'][1]" if how == "deep" else ""))
            blocks.append(_class(f"Part{i}", part.bases + "nn.Module", part.klass, [part.init], [lines, "return h"]))
            if how == "nested":
                init.append(f"self.part{i} = Part{i}()\n"), calls.append(f"h = self.part{i}(h)\n")
            else:
                init.append(f"self.part{i} = nn.ModuleDict({{'inner': nn.Sequential(nn.Identity(), Part{i}())}})\n")
                calls.append(f"h = self.part{i}['inner'](h)\n")
        else:
            part = given.numbered(i, outputs, "LOSS")
            is_module = part.needs_module or random.random() < 0.5
            lines_of_loss = [
                "h = p if p.dim() == 2 else p[:, None]",
                part.forward,
                "p = h.view_as(p)",
                f"return {PLAIN[task]}",
            ]
            loss_text = _class(
                "Loss",
                (part.bases + ("nn.Module" if is_module else "")).rstrip(", "),
                part.klass,
                [part.init],
                lines_of_loss,
                "p, y",
                base_init=is_module,
            )
            loss_text = loss_text.replace("class Loss():", "class Loss:") + "LOSS = Loss()\n"
        if part.callback:
            callbacks.append((f"Change{i}", part.callback))
    inputs = (
        []
        if standard or family == "tokens" or random.random() > 0.12
        else [random.choice(INPUTS).numbered(9, 0, "fit.model")]
    )
    init += [part.init for part in inputs]
    text = _module(
        random,
        number,
        standard,
        task,
        outputs,
        net,
        parts,
        blocks,
        init,
        klass,
        bases,
        calls,
        loss_text,
        callbacks,
        inputs,
    )
    compile(text, f"case {number}", "exec")
    return text


def _module(
    random: Random,
    number: int,
    standard: bool,
    task: str,
    outputs: int,
    net: Network,
    parts: list[tuple[str, Part]],
    blocks: list[str],
    init: list[str],
    klass: list[str],
    bases: list[str],
    calls: list[str],
    loss_text: str,
    callbacks: list[tuple[str, str]],
    inputs: list[Part],
) -> str:
    names = ", ".join(f"{part.name} ({how})" for how, part in parts) or "none"
    random.shuffle(calls)
    lines = [f'"""Case {number}: {net.family}, {"standard layers" if standard else "parts: " + names}."""', HEADER]
    lines += [f'TASK = "{task}"', *blocks]
    head = f"self.head = nn.Linear({net.width}, {outputs}{', bias=False' if random.random() < 0.1 else ''})"
    if standard and net.layers is not None and random.random() < 0.4:
        lines += [
            f"def make_model():\n    return nn.Sequential({', '.join([*net.layers, f'nn.Linear({net.width}, {outputs})'])})\n"
        ]
    else:
        extra = (
            []
            if not standard or random.random() > 0.2
            else [
                random.choice(
                    [
                        "self.unused = nn.Linear(2, 2)",
                        "self.head.bias = None",
                        "self.register_buffer('constant', torch.ones(3))",
                        "self.net_is = 'plain'",
                    ]
                )
            ]
        )
        module_bases = ", ".join(
            dict.fromkeys([*bases, *([] if any(how == "base" for how, _ in parts) else ["nn.Module"])])
        )
        body = [*(part.forward for part in inputs), *net.forward, *calls, "return self.head(h)"]
        lines.append(
            _class("Model", module_bases, "".join(klass), [*net.init, *init, head, *extra], body, net.arguments)
        )
        if parts and random.random() < 0.15:
            lines.append(
                "class Derived(Model):\n    def forward(self, *args):\n        return super().forward(*args) * 0.9\nModel = Derived\n"
            )
        freeze = random.random() < 0.1
        lines.append(
            "def make_model():\n    model = Model()\n"
            + ("    next(model.parameters()).requires_grad_(False)\n" if freeze else "")
            + "    return model\n"
        )
    lines.append(_data_text(random, net.family, task, standard))
    lines.append(_loss_text(random, task, standard, loss_text, callbacks))
    precision = "bf16" if random.random() < 0.12 else "fp32"
    optimizer = random.choice(STANDARD_OPTIMIZERS if standard else OPTIMIZERS)
    lines += [OWN_OPTIMIZER if optimizer == "OwnOptimizer" else ""]
    lines += [f"class {name}(onecycle.Callback):\n" + indent(text, "    ") for name, text in callbacks]
    made = [f"{name}()" for name, _ in callbacks]
    if random.random() < (0.1 if standard else 0.15):
        made.append(random.choice(LIBRARY_CALLBACKS[:3] if standard else LIBRARY_CALLBACKS))
    lines.append(f"def make_callbacks():\n    return [{', '.join(made)}]\n")
    metric = random.choice([name for name in METRICS[task] if not standard or name != "own_metric"])
    lines.append(random.choice(OWN_METRICS) + "\n" if metric == "own_metric" else "")
    settings = {"metrics": metric, "opt_func": optimizer, "precision": f'"{precision}"'}
    settings |= {"true_wd": "False"} if random.random() < 0.1 else {}
    settings |= {"bn_wd": "False"} if random.random() < 0.1 else {}
    lines.append(
        "def settings():\n    values = dict(" + ", ".join(f"{name}={value}" for name, value in settings.items()) + ")"
    )
    lines.append("    return {name: value for name, value in values.items() if value is not None}\n")
    lines.append(f"SPLIT = {random.random() < 0.12 and not standard}")
    fits = random.choice([(2, 1), (1, 2), (2, 2), (3, 1)])
    lines.append(f"EPOCHS = {fits}")
    lines.append(f"LR = {random.choice([0.003, 0.01, 0.03])}")
    lines.append(f"def between(learn):\n    {random.choice(BETWEEN) if not standard else 'pass'}\n")
    return "\n".join(line for line in lines if line.strip()) + "\n"


def _data_text(random: Random, family: str, task: str, standard: bool) -> str:
    kind = (
        "arrays"
        if standard
        else random.choices(["arrays", "numpy", "uneven", "loader", "dataset", "double"], [14, 4, 2, 2, 1, 1])[0]
    )
    rows = 104 if kind != "uneven" else 99
    x, y = DATA[family].replace("ROWS", str(rows)), TARGETS[task].replace("ROWS", str(rows))
    lines = ["def make_data():", "    global ARRAYS", "    g = torch.Generator().manual_seed(0)"]
    lines += [f"    x, y = {x}, {y}"]
    if family == "two":
        lines += [
            f"    ids = torch.randint(0, 12, ({rows},), generator=g)",
            "    train, valid = (x[:80], ids[:80], y[:80]), (x[80:], ids[80:], y[80:])",
        ]
    else:
        lines += ["    train, valid = (x[:80], y[:80]), (x[80:], y[80:])"]
    if kind == "numpy":
        lines.append("    train, valid = [tuple(t.numpy() for t in some) for some in (train, valid)]")
    if kind == "double" and family not in ("tokens", "two"):
        lines.append("    train, valid = [(x.double(), y) for x, y in (train, valid)]")
    lines.append("    ARRAYS = [train, valid]")
    if kind == "loader":
        lines.append("    train, valid = (torch.utils.data.TensorDataset(*some) for some in (train, valid))")
        lines.append(
            "    train, valid = torch.utils.data.DataLoader(train, 8, shuffle=True), torch.utils.data.DataLoader(valid, 8)"
        )
        lines.append("    return onecycle.DataBunch(train, valid, seed=3)")
    elif kind == "dataset":
        lines.append("    class Rows(torch.utils.data.Dataset):")
        lines.append("        def __init__(self, tensors):\n            self.tensors = tensors")
        lines.append("        def __len__(self):\n            return len(self.tensors[0])")
        lines.append("        def __getitem__(self, i):\n            return tuple(t[i] for t in self.tensors)")
        lines.append("    return onecycle.DataBunch.create(Rows(train), Rows(valid), bs=8, seed=3)")
    else:
        val_bs = random.choice(["", ", val_bs=16", ", val_bs=7"])
        lines.append(f"    return onecycle.DataBunch.create(train, valid, bs=8, seed=3{val_bs})")
    return "\n".join(lines) + "\n"


def _loss_text(random: Random, task: str, standard: bool, loss_text: str, callbacks: list[tuple[str, str]]) -> str:
    if not loss_text:
        kind = random.random() if not standard else 0.0
        if kind < 0.62:
            loss_text = f"LOSS = {random.choice(LOSSES[task])}\n"
        elif kind < 0.92:
            loss_text = random.choice(OWN_LOSSES) + "\n"
        else:
            loss_text, callback = random.choice(LOSS_CALLBACKS)
            callbacks.append(("ChangeLoss", callback + "\n"))
    loss_text = loss_text.replace("PLAIN", PLAIN[task])
    return "MODEL = None\n" + loss_text


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(source(int(argument)))
