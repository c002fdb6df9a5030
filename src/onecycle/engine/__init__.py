"""The fast engine: a training step captured once and replayed without Python."""
