"""Parsers of bytes from others, fed with mutants of valid files: each is understood, or refused in a sentence."""
