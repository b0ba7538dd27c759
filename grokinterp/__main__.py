"""`python -m grokinterp`: the command line."""

from grokinterp.cli import main

main()
