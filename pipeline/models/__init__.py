"""The detector as a Keras model."""
