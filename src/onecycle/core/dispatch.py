"""The base of the library's dispatch modes, which see each operator of torch that is called in their block."""

from torch.utils._python_dispatch import TorchDispatchMode  # the documented way in, private by name only


class DispatchMode(TorchDispatchMode):
    """A dispatch mode that does not make torch import torch.compile for nothing, which takes half a second."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
