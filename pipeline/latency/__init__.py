"""The latency model: what a device would take."""
