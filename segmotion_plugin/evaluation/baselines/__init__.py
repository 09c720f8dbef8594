"""Published methods, written from their papers, to be compared with on the same data."""
