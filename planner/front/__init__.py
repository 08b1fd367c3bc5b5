"""A replica of the planner: compiles itself, and forwards what concerns generations."""
