"""Plots, progress displays, interpretations and the report of a run."""
