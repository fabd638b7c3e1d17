"""Manifest, tar, signature."""
