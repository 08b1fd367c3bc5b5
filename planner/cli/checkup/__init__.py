"""What ``ditplan doctor`` looks at, each module one side of a deployment. Every look is bounded."""
