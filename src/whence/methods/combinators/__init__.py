"""One file per combinator: a function over any method, named before it as in ``noise.grad-cam``."""
