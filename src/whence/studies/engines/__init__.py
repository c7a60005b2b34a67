"""Who does the work of a study: engines only hand out shards, and tell which workers died."""
