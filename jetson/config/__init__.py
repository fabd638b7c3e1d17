"""The one file that says what a runner does: cameras by name, and everything else."""
