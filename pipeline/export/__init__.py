"""Keras to ONNX and LiteRT."""
