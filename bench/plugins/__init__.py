"""Who is found under a name, and by which code."""
