"""Where models come from: one file per source, each with ``module`` (built and filled) and ``classifier``."""
