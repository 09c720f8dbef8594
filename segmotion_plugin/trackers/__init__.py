"""Point trackers: video in, long-range 2D tracks out. One file per tracker."""
