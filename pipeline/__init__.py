"""jetmask on the workstation: from labelled photographs to a bundle that a Jetson runs."""
