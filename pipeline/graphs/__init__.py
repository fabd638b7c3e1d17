"""ONNX graphs: read, edit, lint, fuse."""
