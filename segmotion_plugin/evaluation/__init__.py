"""Measures of masks, objects, tracks and poses; readers of benchmark data; baselines; and the runs over all of them."""
