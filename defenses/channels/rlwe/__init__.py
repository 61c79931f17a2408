"""Exact sums under ring learning with errors: one fresh key per silo and round, key sums by secure aggregation.

Not audited, and not constant-time. Parameters, proofs and estimates: ``docs/crypto.md``.
"""
