"""Who reads what, found by trying."""
