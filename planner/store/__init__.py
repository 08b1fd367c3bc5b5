"""What must outlive the planner's process: generations, their events, leases and artifacts."""
