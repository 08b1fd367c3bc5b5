"""How the planner and its replicas listen, and what every call passes."""
