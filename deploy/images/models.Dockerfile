# Checkpoints for the component models-init-copy, here the demo's:
#   buildah bud --file deploy/images/models.Dockerfile --build-arg BASE=PLANNER_IMAGE deploy/demo
# BASE: any image with cp, as the planner's.
ARG BASE=ghcr.io/ditplan/planner:0.1.0

FROM ${BASE}
COPY model /checkpoints/demo
USER 10001:10001
