"""What is seen of an executor from outside: facts, and the logs, metrics and traces of them."""
