"""Rounds: who acts when, what is sent, and what is kept."""
