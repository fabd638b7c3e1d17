"""Calibration and int8."""
