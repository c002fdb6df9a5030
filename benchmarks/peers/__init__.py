"""The contestants, one file each.

Each has a class `Peer` with

    name: str                       as the tables show it
    package: str                    whose version is reported
    note: str                       what differs from the others
    Peer(job)                       everything up to the first step; raises Unsupported for a workload it cannot do
    epoch() -> float | None         trains one epoch and validates; the accuracy, None where there is none

An epoch is a whole cycle of the schedule; the next one goes on with the same weights. Displays are off.
"""

import shutil

NAMES = (
    "onecycle_eager",
    "onecycle_fast",
    "plain_loop",
    "tight_loop",
    "fastai2",
    "lightning2",
    "skorch1",
    "sklearn_mlp",
    "keras_jax",
    "jax_scan",
    "floor",
)


class Unsupported(Exception):  # noqa: N818 -- not an error: the peer has no such thing
    """The peer offers nothing for this workload; the message says what."""


def on_device(kind: str) -> str:
    """What to say of a peer on this kind of device: where there is a GPU, it may have been installed without it."""
    return f"on the {kind.upper()}, as installed" if shutil.which("nvidia-smi") else ""
