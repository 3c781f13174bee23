"""Run the command line: `python -m llmd`."""

from llmd.cli.main import main

if __name__ == "__main__":
    main()
