"""COLMAP's door: keep masks for an image folder, for a database that exists, and for undistorted images."""
