"""`python -m grokinterp.cli`."""

from grokinterp.cli import main

main()
