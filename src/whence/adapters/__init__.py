"""The calls of Captum, grad-cam and Quantus, with whence's numbers: to switch, change the import."""

import whence.adapters.captum as captum
import whence.adapters.grad_cam as grad_cam
import whence.adapters.quantus as quantus

__all__ = ["captum", "grad_cam", "quantus"]
