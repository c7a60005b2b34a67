"""A model that whence never changes."""
