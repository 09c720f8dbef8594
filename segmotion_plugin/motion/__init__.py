"""Which tracks move in the world: geometry, the trajectory transformer, and SegAnyMo's released network."""
