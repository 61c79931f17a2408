"""Records, their splits, and the secret that is planted among them."""
