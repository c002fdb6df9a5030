"""Weights, optimizer state and whole fits on the disk."""
