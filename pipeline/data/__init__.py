"""Labelled photographs: importers, checks, splits, drawn data."""
