"""Entry point of `python -m service` and of the console scripts."""

import gc
import signal

# Imports make little garbage, and each collection during them looks at all that is imported:
# together a tenth of their CPU.
gc.disable()

# During the imports Ctrl-C ends the process at once, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from service.cli import main  # noqa: E402 - see above

gc.freeze()  # what is imported lives until the end
gc.enable()

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="service")
