"""The one exception that means "the user can mend this": shown as one line, never as a traceback."""


class UserError(Exception):
    """Bad input, stated in one line: the file or field, what was found, what was expected.

    Commands print it to stderr and exit with code 2 (see ``cdm4mi.cli.main``). The message must not hold patient data.
    """
