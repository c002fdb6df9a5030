"""States that mean harm: of bundles, checkpoints and runs, and programs, signed as they should be; malice.py feeds them."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bad_input import formats
from durability.malice_files import EITHER, PLACES, READ, REFUSED, Case, Place, put
from durability.malice_json import CODE, HUGE, ODD, at, edited
from export.unlisted_operators import UNLISTED
from onecycle import load_predictor

Change = Callable[[Any], object]
TABLE = Place("bundle", "table", "it", lambda: load_predictor("it", device="cpu").get_preds(formats.table())[0])

# --- states: wrong types in every place; a few of them fit, and then nothing may happen but what fits ------------------

BUNDLE = (
    *("architecture", "architecture.name", "architecture.sizes", "architecture.sizes.0", "model_class", "info", "info.loss", "info.metrics"),
    *("info.classes", "info.input_shape", "info.input_shape.0", "info.input_dtype", "info.pixel_scale", "info.versions", "info.features", "info.target"),
)  # fmt: skip
_FEATURES = "info.features.columns"
TABLES = (
    *("architecture.numbers", "architecture.sizes", "architecture.outputs", "architecture.hidden", "architecture.dropout", "architecture.ramps"),
    *(_FEATURES, f"{_FEATURES}.0", f"{_FEATURES}.0.kind", f"{_FEATURES}.0.mean", f"{_FEATURES}.0.std", f"{_FEATURES}.0.fill", f"{_FEATURES}.0.name"),
    *(f"{_FEATURES}.1.values", f"{_FEATURES}.1.form", f"{_FEATURES}.3.parts", f"{_FEATURES}.3.parts.day", f"{_FEATURES}.3.fill", "info.target.task"),
    *("info.target.names", "info.target.classes", "info.target.mean", "info.target.lists", "info.target.format", "info.features.format"),
)  # fmt: skip
CHECKPOINT = (
    *(
        "epochs_trained",
        "optimizer",
        "optimizer.name",
        "optimizer.param_groups",
        "optimizer.param_groups.0",
        "optimizer.scalars",
    ),
    *("optimizer.param_groups.0.params", "optimizer.param_groups.0.betas", "optimizer.param_groups.0.lr"),
)
RUN = (
    *(name for name in CHECKPOINT if name != "epochs_trained"), "wd", "first_epoch", "ended", "best", "best.name", "best.value", "about", "about.model",
    *("position", "position.epoch", "position.num_batch", "position.iteration", "position.seconds", "epochs", "schedule", "schedule.kind"),
    *("schedule.steps", "schedule.peaks", "schedule.moms", "schedule.pct_start", "record", "record.epochs", "record.losses", "record.metric_names"),
    *("record.settings", "callbacks", "callbacks.0", "callbacks.0.name", "callbacks.0.values", "checkpoints", "checkpoints.every", "checkpoints.keep"),
    "checkpoints.best",
)  # fmt: skip


def annealed(depth: int) -> Any:
    """Schedules in schedules."""
    found: Any = {"kind": "constant", "lrs": [0.1, 0.1], "mom": None}
    for _ in range(depth):
        found = {"kind": "annealed", "before": found, "start": 1, "steps": 1, "ends": [0.1, 0.1], "mom": None}
    return found


SPECIAL: dict[str, dict[str, Change]] = {
    "bundle": {
        "sizes of 10^6": at("architecture.sizes", [10**6, 10**6]), "sizes of 10^9": at("architecture.sizes", [20, 10**9, 4]),
        "sizes of 10^18": at("architecture.sizes", [20, 10**18, 4]), "a million layers": at("architecture.sizes", [1] * 10**6),
        "layers of nothing": at("architecture.sizes", [20, *[0] * 100_000, 4]), "negative sizes": at("architecture.sizes", [20, -16, 4]),
        "negative sizes that make up": at("architecture.sizes", [20, 10**6, -(10**6), 4]), "a class of ours": at("architecture.name", "Learner"),
        "no model": lambda state: state.pop("architecture"), "a class elsewhere": at("architecture.name", "os.system"),
        "a dtype that is none": at("info.input_dtype", "nn"), "10^6 classes": at("info.classes", [[]] * 10**6),
    },
    "table": {
        "10^9 codes": at("architecture.sizes", [10**9, 3]), "10^6 ramps": at("architecture.ramps", 10**6), "10^9 numbers": at("architecture.numbers", 10**9),
        "hidden 10^9": at("architecture.hidden", [10**9]), "a million hidden": at("architecture.hidden", [1] * 10**6),
        "a negative ramp": at("architecture.ramps", -(10**6)), "negative outputs": at("architecture.outputs", -2), "an unknown setting": at("architecture.code", CODE),
        "10^5 columns": lambda state: state["info"]["features"].update(columns=state["info"]["features"]["columns"][:1] * 10**5),
        "10^6 values": at(f"{_FEATURES}.1.values", [str(i) for i in range(10**6)]),
    },
    "checkpoint": {
        "another index": at("optimizer.scalars", {"x/step": 1}), "a large index": at("optimizer.scalars", {f"{HUGE}/step": 1}),
        "no slash": at("optimizer.scalars", {"step": 1}), "10^6 of them": at("optimizer.param_groups.0.params", list(range(10**6))),
        "an index twice": at("optimizer.param_groups.0.params", [0, 0]), "dunders": at("optimizer.param_groups.0.__class__", CODE),
    },
    "run": {
        **{f"schedules {depth} deep": at("schedule", annealed(depth)) for depth in (50, 400, 900)},
        "a schedule by zero": at("schedule.div_factor", 0), "steps of 0": at("schedule.steps", 0), "rates of 10^300": at("schedule.peaks", [1e300, 1e300]),
        "the best elsewhere": at("best", {"name": "../../../slip", "value": 1.0}), "every batch and a half": at("checkpoints.every", "1.5 batches"),
        "kept 0": at("checkpoints.keep", 0), "about 10^5 things": at("about", {f"{i}": {f"{i}": i} for i in range(10**5)}),
        "10^5 callbacks": lambda state: state.update(callbacks=state["callbacks"] * 10**5), "more generators": at("position.generators", {}),
        "an unknown position": at("position.code", CODE), "losses in the state": at("record.losses", [1.0] * 31),
        "a batch after the last": at("position.num_batch", 10**9), "an epoch before the first": at("position.epoch", -3),
        "a batch before the first": at("position.num_batch", -3), "an iteration before the first": at("position.iteration", -HUGE),
    },
}  # fmt: skip


def states() -> Iterator[Case]:
    """Wrong values at every place, and what somebody may have thought of."""
    places = {"bundle": PLACES["bundle"], "table": TABLE, "checkpoint": PLACES["checkpoint"], "run": PLACES["run"]}
    for kind, paths in {"bundle": BUNDLE, "table": TABLES, "checkpoint": CHECKPOINT, "run": RUN}.items():
        changes = {
            f"{path} is {value!r}"[:60]: at(path, value)
            for path in paths
            for value in ODD
            if (path, value) != ("epochs", HUGE)
        }
        for name, change in (changes | SPECIAL[kind]).items():  # a run of 10^30 epochs is one, and never ends
            write = partial(put, places[kind], edited("state.json", change))
            yield Case(f"state, {kind}", name, write, places[kind].read, EITHER)
    yield Case("state, table", "a good one", partial(put, TABLE, lambda folder: None), TABLE.read, READ)


# --- programs ---------------------------------------------------------------------------------------------------------

X, H = {"of": "x"}, {"of": "h"}
PROGRAM: dict[str, Any] = {
    "format": 1,
    "inputs": ["x"],
    "weights": {f"{part[0]}{layer}": f"layers.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")},
    "constants": {},
    "parameters": [],
    "calls": [
        ["h", "aten.linear.default", [X, {"of": "w0"}, {"of": "b0"}], {}],
        ["r", "aten.relu.default", [H], {}],
        ["out", "aten.linear.default", [{"of": "r"}, {"of": "w2"}, {"of": "b2"}], {}],
    ],
    "output": {"of": "out"},
}
OPERATORS = [
    *UNLISTED,
    "\nos.system",
    "aten.item.default",
    "aten.data_ptr.default",
    "aten.storage_offset.default",
    "inductor.accumulate_grad_.default",
]
FLOAT = {"dtype": {"dtype": "float32"}, "device": {"device": "rows"}}
BIG, MUCH = 3 * 10**8, 10**12  # 1.2 GB and 4 TB of float32


def calls(*found: list[Any]) -> Change:
    """A program of these calls that gives the last one's result."""
    return lambda program: program.update(calls=list(found), output={"of": found[-1][0]})


def call(name: str, *args: Any, **kwargs: Any) -> list[Any]:
    """A call whose result is `h`."""
    return ["h", name, list(args), kwargs]


def chain(count: int, name: str, form: Callable[[Any], list[Any]], begin: list[Any]) -> Change:
    """A call of a call of a call."""
    return calls(begin, *([f"h{i}", name, form({"of": f"h{i - 1}" if i else "h"}), {}] for i in range(count)))


PARTS: dict[str, Change] = {
    **{f"{path} is {value!r}"[:60]: at(path, value) for path in ("format", "inputs", "inputs.0", "weights", "weights.w0", "constants", "parameters", "calls",
        "calls.0", "calls.0.0", "calls.0.1", "calls.0.2", "calls.0.2.0", "calls.0.3", "output", "output.of") for value in ODD},
}  # fmt: skip
PROGRAMS: dict[str, Change] = {
    **{f"calls {name!a}": calls([*call(name, X)]) for name in OPERATORS},
    **{f"{name} of {size:,}": calls(call(f"aten.{name}.default", *args(size), **FLOAT)) for size in (BIG, MUCH, 2**62) for name, args in {
        "zeros": lambda size: [[size]], "ones": lambda size: [[size]], "full": lambda size: [[size], 1], "arange": lambda size: [size],
        "linspace": lambda size: [0, 1, size]}.items()},
    **{f"{name} of {size:,}": calls(call(f"aten.{name}", X, *args(size))) for size in (BIG, MUCH) for name, args in {
        "repeat.default": lambda size: [[size // 60, 1]], "tile.default": lambda size: [[size // 60, 1]], "new_zeros.default": lambda size: [[size]],
        "repeat_interleave.self_int": lambda size: [size // 60], "pad.default": lambda size: [[size, 0]], "constant_pad_nd.default": lambda size: [[size, 0]],
        "fft_fft.default": lambda size: [size], "unfold.default": lambda size: [1, size, 1]}.items()},
    "eye": calls(call("aten.eye.default", 10**5, **FLOAT)), "eye of 10^9": calls(call("aten.eye.default", 10**9, **FLOAT)),
    "expand, then copied": calls(["e", "aten.expand.default", [{"of": "w0"}, [10**6, 16, 20]], {}], call("aten.clone.default", {"of": "e"}, memory_format={"memory_format": "contiguous_format"})),
    "one_hot": calls(["i", "aten.to.dtype", [X, {"dtype": "int64"}], {}], call("aten.one_hot.default", {"of": "i"}, 10**7)),
    "diag_embed": chain(5, "aten.diag_embed.default", lambda one: [one], call("aten.alias.default", X)),
    "outer": calls(["a", "aten.ones.default", [[10**5]], FLOAT], call("aten.outer.default", {"of": "a"}, {"of": "a"})),
    "upsample": calls(["v", "aten.view.default", [X, [1, 3, 4, 5]], {}], call("aten.upsample_nearest2d.default", {"of": "v"}, [10**4, 10**4])),
    "doubled by cat": chain(40, "aten.cat.default", lambda one: [[one, one]], call("aten.alias.default", X)),
    "doubled by stack": chain(40, "aten.stack.default", lambda one: [[one, one]], call("aten.alias.default", X)),
    "numbers that double": chain(99, "number.mul", lambda one: [one, one], call("size", X, 1)),
    "results that are kept": calls(*([f"h{i}", "aten.ones.default", [[10**7]], FLOAT] for i in range(30)), call("aten.cat.default", [{"of": f"h{i}"} for i in range(30)])),
    "an index beyond": calls(call("aten.index_select.default", X, 1, {"of": "i"})), "no tensor": calls(call("number.add", 1, 2)),
    "a list": calls(call("aten.split.Tensor", X, 1)), "text for rows": calls(call("aten.linear.default", "text")), "other sizes": calls(call("aten.view.default", X, [7, 7])),
    "words": calls(call("item", "text", "__class__")), "an attribute": calls(call("item", X, 0)), "one row too few": calls(call("aten.slice.Tensor", X, 0, 1)),
    "a number": calls(call("aten.sum.default", X)), "rows of 0": calls(call("aten.slice.Tensor", X, 1, 0, 0)), "whole numbers": calls(call("aten.to.dtype", X, {"dtype": "int64"})),
    "complex numbers": calls(call("aten.to.dtype", X, {"dtype": "complex64"})), "weights written over": calls(call("aten.fill_.Scalar", {"of": "w0"}, 3)),
    "a recurrent layer of 10^9": calls(call("aten.lstm.input", X, [X, X], [{"of": "w0"}] * 4, True, 10**9, 0.0, False, False, True)),
    "divided by 0": calls(call("number.floordiv", 1, 0)), "64 bits": calls(call("number.mul", 2**62, 2**62)), "an edge": calls(call("number.floordiv", -(2**63), -1)),
}  # fmt: skip
PROGRAMS_THAT_FIT = (
    "complex numbers",
    "weights written over",
    "a list",
    "rows of 0",
    "whole numbers",
    "parameters is",
    "100,000 calls",
    "one row too few",
    "complex",
)


SQUARE = ["h", "aten.ones.default", [[3000, 3000]], FLOAT]
LARGE = (  # as large as they say, which their model might be: they are loaded, and not asked
    *("eye", "expand, then copied", "one_hot", "diag_embed", "outer", "upsample", "doubled by cat", "doubled by stack"),
    "results that are kept",
)
LONG: dict[str, Change] = {  # nor can anybody say how long a model may compute
    "100 products": chain(100, "aten.mm.default", lambda one: [one, one], SQUARE),
    "20,000 calls": chain(20_000, "aten.relu.default", lambda one: [one], call("aten.alias.default", X)),
    "100,000 calls": chain(100_000, "aten.relu.default", lambda one: [one], call("aten.alias.default", X)),
    "a thousand results in one call": calls(*([f"h{i}", "aten.alias.default", [X], {}] for i in range(1_000)), call("aten.cat.default", [{"of": f"h{i}"} for i in range(1_000)])),
}  # fmt: skip


def loaded() -> object:
    """The bundle, not asked for a prediction: that takes what its model takes (SECURITY.md)."""
    return load_predictor("it", device="cpu")


def programs() -> Iterator[Case]:
    """Programs that call what they may not, that ask for more than there is, or that fail while they predict."""
    place = PLACES["bundle"]

    def write(change: Change, good: Path) -> None:
        def state(found: dict[str, Any]) -> None:
            found.update(architecture=None, model_class="Net", program=copy.deepcopy(PROGRAM))
            change(found["program"])

        put(place, edited("state.json", state), good)

    for name, change in (PROGRAMS | PARTS).items():
        if name in LARGE or name.endswith(f"of {BIG:,}"):
            yield Case("program, loaded", name, partial(write, change), loaded, EITHER)
            continue
        expected = EITHER if name in PROGRAMS_THAT_FIT or name in PARTS else REFUSED
        yield Case("program", name, partial(write, change), place.read, expected)
    yield Case("program", "a good one", partial(write, lambda program: None), place.read, READ)
    for name, change in LONG.items():
        yield Case("program, loaded", name, partial(write, change), loaded, EITHER)
