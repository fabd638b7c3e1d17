"""The demo: the whole way from photographs to a live page once."""
