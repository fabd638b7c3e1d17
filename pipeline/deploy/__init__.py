"""Ssh, preflight, one device, a fleet."""
