"""Monocular depth. One file per model behind the protocol of `base`."""
