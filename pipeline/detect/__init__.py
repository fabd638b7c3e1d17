"""Detection on photographs and videos of one's own."""
