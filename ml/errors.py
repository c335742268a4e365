"""What a person can mend: each is one line that says what is wrong, where, and what to do."""


class Mendable(Exception):
    """The base: `python -m ml` prints it as one line and ends with status 1."""


class BadScenario(Mendable):
    """A scenario cannot be used as it stands."""


class BadData(Mendable):
    """The data are not there, or too little to learn or to judge."""


class Leak(Mendable):
    """A feature has another value where the future is cut off."""


class NotEqual(Mendable):
    """The exported model does not answer what the trained one does."""


class Drifted(Mendable):
    """What is to be scored is not what the model was judged on."""


class NotKept(Mendable):
    """A step asks for what an earlier one should have left."""


class Away(Mendable):
    """The lake's catalog or a Ray cluster does not answer, or another run holds the table."""


class Stopped(Mendable):
    """Scoring a stream cannot go on; started again, it goes on where it was."""
