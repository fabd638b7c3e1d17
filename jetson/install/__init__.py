"""Releases on the device and the service."""
