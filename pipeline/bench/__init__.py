"""Measured times, here and from trtexec logs."""
