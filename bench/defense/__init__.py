"""The parts of a defense, how they compose, and their plain defaults."""
