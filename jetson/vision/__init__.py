"""Letterbox, boxes, geometry."""
