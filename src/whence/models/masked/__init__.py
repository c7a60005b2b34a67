"""A model one of whose layers is masked, so that each of its filters stands for one place: what a model folder holds.

How such a model is trained, and measured, is in ``whence.interpretable``.
"""
