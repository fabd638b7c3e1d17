"""Persons, lines, zones."""
