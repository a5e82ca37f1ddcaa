"""The one error class for what a user can mend."""


class UserError(ValueError):
    """Wrong input: the text is one line that names the setting or file, its value and the mend.

    The command line prints it without a traceback and exits with status 2.
    """
