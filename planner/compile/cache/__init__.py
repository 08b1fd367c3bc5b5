"""What a ``cache_config`` makes of a program: columns with their ops, and what is wrong."""
