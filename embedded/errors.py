"""Why the embedded stack does not start or go on, in words for the person who started it."""


class StackRefused(Exception):
    """The message says what is wrong, where, and what to do about it."""
