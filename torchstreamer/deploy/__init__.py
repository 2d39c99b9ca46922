"""Deployment: the static step, compilation, export."""
