"""The plain default of every part of a defense: what ``fedavg`` is made of."""
