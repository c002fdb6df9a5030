"""The loop, and what takes part in it."""
