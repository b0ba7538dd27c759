"""Logs of any tool, as one table of curves: a format a file."""
