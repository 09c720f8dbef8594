"""From tracks with a probability of motion to pixel masks of objects."""
