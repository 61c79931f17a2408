"""Sums under CKKS with a key that no party holds: every silo has one additive share, and all must help to open a sum.

Not audited, and not constant-time. Scheme, parameters and security: ``docs/crypto.md``.
"""
