"""The errors of the public edge: ValueError for an argument, these two for the rest."""


class FormatError(ValueError):
    """A file is not what it should be: the message names the file, what was expected, what came, what to do."""


class TrainingError(ValueError):
    """Training cannot go on: the message names the step, what happened, and what is kept."""
