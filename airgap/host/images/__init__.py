"""Engines from container images: brought in by digest, run shut in."""
