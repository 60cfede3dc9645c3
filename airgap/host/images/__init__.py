"""Engines from container images: brought into the host's container engine by digest, run shut in."""
