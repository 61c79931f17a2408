"""Attacks in a process of their own, which holds the view's files and nothing else of the run (``--isolate``)."""
