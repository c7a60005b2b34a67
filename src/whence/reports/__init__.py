"""Overlays, figures, the one-file page and the notebook's views, from results and pictures alone."""
