"""One HTML file that tells of a run, or of several side by side, and needs no network."""

from grokinterp.viz.report.report import report

__all__ = ["report"]
