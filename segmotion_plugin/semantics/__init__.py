"""Semantic features of image patches. One file per network."""
