"""`python -m onecycle` is the command `onecycle`."""

from onecycle.cli.app import main

main()
