"""Streams of single layers."""
