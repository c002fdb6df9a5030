"""Trained models as files that predict anywhere."""
