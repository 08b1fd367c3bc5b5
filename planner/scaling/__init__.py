"""How many seconds of work there are, and how many executors that asks for."""
