"""Training of the shipped motion weights on simulated worlds."""
