"""JAX: the whole epoch one compiled program, a lax.scan over the batches, with AdamW written out."""

import itertools
from functools import partial

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from workloads import Job, Workload

from peers import on_device
from peers.schedule import BETAS, WD, one_cycle

Tree = dict[str, jax.Array]


def initial(workload: Workload) -> Tree:
    """Weights uniform in 1 / sqrt(inputs), as torch has them."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    sizes = workload.sizes
    if workload.channels:
        for i, pair in enumerate(zip((1, *workload.channels), workload.channels, strict=False)):
            shapes[f"k{i}"] = (3, 3, *pair)
        sizes = (workload.channels[-1] * 7 * 7, sizes[-1])
    for i, pair in enumerate(itertools.pairwise(sizes)):
        shapes[f"w{i}"] = pair
    found: Tree = {}
    for name, shape in shapes.items():
        bound = 1 / np.sqrt(np.prod(shape[:-1]))
        for key, size in ((name, shape), (f"b{name}", shape[-1:])):
            found[key] = jnp.asarray(random.uniform(-bound, bound, size), jnp.float32)
    return found


def logits(params: Tree, x: jax.Array) -> jax.Array:
    """The network's outputs (n, 10)."""
    kernels = [name for name in params if name.startswith("k")]
    weights = [name for name in params if name.startswith("w")]
    if kernels:
        x = x.reshape(-1, 28, 28, 1)
        for name in kernels:
            x = lax.conv_general_dilated(
                x, params[name], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + params[f"b{name}"])
        x = x.reshape(len(x), -1)
    for name in weights[:-1]:
        x = jax.nn.relu(x @ params[name] + params[f"b{name}"])
    return x @ params[weights[-1]] + params[f"b{weights[-1]}"]


def losses(params: Tree, x: jax.Array, y: jax.Array) -> jax.Array:
    """Cross-entropy of each row."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], 1)[:, 0]


@partial(jax.jit, donate_argnums=0)
def train(
    state: tuple[Tree, Tree, Tree, jax.Array], x: jax.Array, y: jax.Array, order: jax.Array, rates: jax.Array
) -> tuple[tuple[Tree, Tree, Tree, jax.Array], jax.Array]:
    """One epoch over the batches of row numbers `order` (steps, bs); the state and each step's loss."""

    def step(state, batch):
        params, mean, square, count = state
        rows, rate = batch
        loss, grads = jax.value_and_grad(lambda p: losses(p, x[rows], y[rows]).mean())(params)
        count = count + 1
        mean = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, mean, grads)
        square = jax.tree.map(lambda s, g: BETAS[1] * s + (1 - BETAS[1]) * g * g, square, grads)
        c1, c2 = 1 - BETAS[0] ** count, 1 - BETAS[1] ** count
        params = jax.tree.map(
            lambda p, m, s: p * (1 - rate * WD) - rate * (m / c1) / (jnp.sqrt(s / c2) + 1e-8), params, mean, square
        )
        return (params, mean, square, count), loss

    return lax.scan(step, state, (order, rates))


@partial(jax.jit, static_argnums=3)
def validate(params: Tree, x: jax.Array, y: jax.Array, bs: int) -> tuple[jax.Array, jax.Array]:
    """Mean loss and accuracy, `bs` rows at a time."""

    def part(x, y):
        return losses(params, x, y).sum(), (logits(params, x).argmax(1) == y).sum()

    whole = len(x) // bs * bs
    totals = lax.map(lambda xy: part(*xy), (x[:whole].reshape(-1, bs, x.shape[1]), y[:whole].reshape(-1, bs)))
    loss, right = (total.sum() for total in totals)
    if whole < len(x):
        rest = part(x[whole:], y[whole:])
        loss, right = loss + rest[0], right + rest[1]
    return loss / len(x), right / len(x)


class Peer:
    """Everything on the device, one call an epoch."""

    name = "JAX lax.scan"
    package = "jax"
    note = ""

    def __init__(self, job: Job) -> None:
        self.note = on_device(jax.default_backend())
        self.x, self.xv = jnp.asarray(job.x), jnp.asarray(job.xv)
        self.y, self.yv = jnp.asarray(job.y, jnp.int32), jnp.asarray(job.yv, jnp.int32)
        params = initial(job.workload)
        zeros = partial(jax.tree.map, jnp.zeros_like)
        self.state = (params, zeros(params), zeros(params), jnp.zeros((), jnp.int32))
        self.rates = jnp.asarray(one_cycle(job.steps, job.workload.lr), jnp.float32)
        self.steps, self.bs = job.steps, job.bs
        self.random = np.random.default_rng(0)

    def epoch(self) -> float | None:
        """One cycle of one epoch."""
        order = self.random.permutation(len(self.x))[: self.steps * self.bs].astype(np.int32)
        self.state, self.losses = train(self.state, self.x, self.y, order.reshape(self.steps, self.bs), self.rates)
        _, accuracy = validate(self.state[0], self.xv, self.yv, self.bs)
        return float(accuracy)
