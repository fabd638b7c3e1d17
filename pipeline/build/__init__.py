"""Engines and precisions of a model."""
