"""Checkpoints that somebody else wrote: read without running anything, recognised, written."""
