"""Synthetic clinical notes about invented patients, and the small language model pretrained on their kind."""
