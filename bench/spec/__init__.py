"""What decides a result, and the record of it."""
