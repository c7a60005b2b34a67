"""How good are the maps of some methods, on many pictures? Pictures x methods x metrics to a table with intervals."""
