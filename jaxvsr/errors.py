"""The one exception that a user's mistake ends in, and what a library's exception says in one line of it."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one line that names the thing and says what would be right.
    `launch/` prints it and exits with code 2.
    """


def one_line(error: Exception, limit_characters: int = 120) -> str:
    """What a library's exception says on one line, cut at the limit; the exception's name where it has no message."""
    return " ".join(str(error).split())[:limit_characters] or type(error).__name__
