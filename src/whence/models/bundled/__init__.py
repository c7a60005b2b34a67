"""The models that come with whence: their architectures as code, and beside it their folders of weights."""
