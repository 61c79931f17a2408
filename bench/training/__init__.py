"""From a planting to a finished training."""
