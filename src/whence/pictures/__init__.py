"""Files to pixels to tensors, and back to the picture's own pixels."""
