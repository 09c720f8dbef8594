"""Camera reconstruction with COLMAP (pycolmap) from what the masks leave, and its nerfstudio dataset."""
