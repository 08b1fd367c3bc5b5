"""What a program should cost: FLOPs, bytes of weights and caches, exchanges of ranks."""
