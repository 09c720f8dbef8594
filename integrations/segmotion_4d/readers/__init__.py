"""Readers of masks and tracks that were made elsewhere."""
