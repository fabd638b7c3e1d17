"""A frame to faces; the loop."""
