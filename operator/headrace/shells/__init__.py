"""Thin shells around the core: they observe and apply, and decide nothing."""
