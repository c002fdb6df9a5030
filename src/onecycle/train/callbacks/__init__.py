"""Callbacks: the base class, and one file for each that comes with the library."""
