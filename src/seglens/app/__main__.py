"""``python -m seglens.app``: the command line, where no script is on the path."""

from seglens.app.cli import main

main()
