"""`python -m onecycle` is the command `onecycle`."""

from onecycle.cli import main

main()
