"""Events to a broker."""
