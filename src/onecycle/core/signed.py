"""JSON that carries its own SHA-256, written in one way only, so that any change shows."""

import json
from hashlib import sha256
from typing import Any


def signed(values: dict[str, Any]) -> str:
    """`values` as the text of a file, with their SHA-256 at the end."""
    own = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps({**values, "sha256": own}, indent=1, allow_nan=False) + "\n"


def unsigned(text: str) -> dict[str, Any]:
    """The values of a text that `signed` made. Raises ValueError for any other."""
    values: Any = json.loads(text)
    if not isinstance(values, dict) or "sha256" not in values:
        raise ValueError("it has no SHA-256")
    del values["sha256"]
    if signed(values) != text:
        raise ValueError("it does not have the SHA-256 that it says: it is damaged, or was edited")
    return values
