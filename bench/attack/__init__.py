"""What an attack is, and what it may send."""
