"""What another program's exception says, in a line of ours."""


def in_a_line(error: BaseException, most: int = 300) -> str:
    """The first line of what went wrong, at most `most` characters of it; its kind where it says nothing.

    Of an error that SQLAlchemy wrapped, what the database said (`orig`): the rest is the statement.
    """
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
