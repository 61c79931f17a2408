"""Words that everybody uses: errors, streams of randomness, parties, layouts and updates, tokens, frames, the meter."""
