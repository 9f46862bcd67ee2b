"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A mistake in what was given to us: one sentence that names the culprit and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """
