"""The live trade-off and the governor."""
