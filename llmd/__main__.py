"""Run the command line as `python -m llmd`."""

from llmd.cli.main import main

if __name__ == "__main__":
    main()
