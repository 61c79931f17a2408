"""How a view is built: what a coalition knows, what it opens, what follows, and what of it agrees with the truth."""
