"""Channels away."""
