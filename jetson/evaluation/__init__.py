"""Average precision, agreement."""
