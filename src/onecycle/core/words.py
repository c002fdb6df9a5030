"""Words for sentences."""


def number_of(count: int, noun: str, ending: str = "s") -> str:
    """A count with its noun, such as "1 row", "2,000 rows" or, with ending "es", "3 batches"."""
    return f"{count:,} {noun}{ending if count != 1 else ''}"
