"""`python -m skyctl`, and the console script."""

from skyctl.cli.app import main

if __name__ == "__main__":
    main()
