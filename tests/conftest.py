"""What all tests rely on."""

import signal

# A job in the background, as CI may be, is started deaf to Ctrl-C, and so would be every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
