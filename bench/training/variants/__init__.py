"""Runs of their own, one module each (``bench.training.variant``)."""
