"""Board, journal, drift, health."""
