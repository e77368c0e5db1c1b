"""The one exception that a user's mistake ends in."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one line that names the thing and says what would be right.
    `launch/` prints it and exits with code 2.
    """
