"""`python -m service`, and what the console scripts call."""

import signal

# While the commands are imported Ctrl-C ends this process at once, and without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from service.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="service")
