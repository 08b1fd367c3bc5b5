"""What a replica of the planner says with a call that it forwards to the one that dispatches."""

from __future__ import annotations

# The name of who called the replica. Believed of the role `front` only, refused from all others.
ON_BEHALF_OF = "ditplan-on-behalf-of"
# The end of this Generate call is not the end of its work: replicas come and go, and cancel by
# CancelGeneration what their own caller ended.
KEEPS_WORK = "ditplan-keeps-work"
