"""What the harness answered when it was recorded, and that it answers so still."""
