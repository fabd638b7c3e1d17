"""Alerts: rules over what happens, and the receivers that are told, each through a queue of its own on the disk."""
