"""Secure aggregation: the server learns the sum of the survivors' vectors and nothing else of them."""
