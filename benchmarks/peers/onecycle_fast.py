"""onecycle, with the step captured."""

from peers import onecycle_eager


class Peer(onecycle_eager.Peer):
    """The same with engine="fast"."""

    name = "onecycle, fast"
    engine = "fast"
