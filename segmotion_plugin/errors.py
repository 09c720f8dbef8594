"""The one error type that a user's input can raise."""

from __future__ import annotations


class SegmotionError(ValueError):
    """Something the user can mend: one to three lines saying what is wrong, where, and what to do.

    The command line prints the message and ends with exit status 2; no traceback is shown without ``--debug``.
    """
