"""What the commands of `onecycle` do. `cli.py` reads their arguments; each file here does one task with them."""
