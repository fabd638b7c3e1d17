"""Photographs for the next training, from the cameras of this device."""
