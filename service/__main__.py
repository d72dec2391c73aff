"""Entry point of `python -m service` and of the console scripts."""

import signal

# During the imports Ctrl-C ends the process at once, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from service.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="service")
