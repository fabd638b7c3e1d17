"""Batches, augmentation, loss, the training loop."""
