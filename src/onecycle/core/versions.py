"""What a run ran on."""

import platform

import numpy as np
import torch


def versions(device: torch.device) -> dict[str, str]:
    """Versions of Python and the libraries, and the device."""
    from onecycle import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return {
        "onecycle": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(terse=True),
        "device": f"{device} ({name}{threads})",
    }
