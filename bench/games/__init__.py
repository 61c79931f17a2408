"""Games: an experiment with a secret each. A game keeps the truth, takes guesses, and returns leakage figures."""

from bench.games.sheet import leakage, load

__all__ = ["leakage", "load"]
