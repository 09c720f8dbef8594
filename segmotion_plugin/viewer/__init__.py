"""Pictures of a processed clip in 3D: a viser app, off-screen snapshots, and the drawing that nerfstudio's panel shares."""
