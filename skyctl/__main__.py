"""`python -m skyctl`, and the console script."""

from skyctl.host import signals


def main() -> None:
    """Run the command line. Signals are taken care of first: its imports take most of a command's time."""
    signals.exit_on_end()
    from skyctl.cli.app import main as run  # here, once signals are taken care of

    run()


if __name__ == "__main__":
    main()
