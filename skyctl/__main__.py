"""`python -m skyctl`, and the console script."""

import gc

from skyctl.host import signals


def main() -> None:
    """Run the command line. Signals are taken care of first: its imports take most of a command's time."""
    signals.exit_on_end()
    gc.disable()  # to look through modules again and again as they are loaded takes a tenth of what a command takes
    from skyctl.cli.app import main as run  # here, once signals are taken care of

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
