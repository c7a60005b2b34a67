"""How good is a map? One file per metric, and the one ranking of places that all of them use."""
