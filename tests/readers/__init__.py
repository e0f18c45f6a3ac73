"""Readers of event streams that other people write, against our streams."""
