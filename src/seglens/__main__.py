"""``python -m seglens`` is the command line."""

from seglens.app.cli import main

if __name__ == "__main__":
    main()
