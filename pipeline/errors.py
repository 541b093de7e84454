"""Errors that a user can mend. A message is one sentence: value, place and remedy; the command line prints it as is."""

from cptsel.pipeline.summary import Summary


class CptselError(Exception):
    """Base of all errors that are the user's to mend. ``exit_code`` is what the command line exits with."""

    exit_code = 2
    summary: Summary | None = None  # what was found before the failure; the command line prints it too


class UsageError(CptselError):
    """An option, path or combination that can't be used (exit code 2)."""

    exit_code = 2


class BadInputError(CptselError):
    """Input data that is damaged beyond the share that was allowed (exit code 3)."""

    exit_code = 3


class VerificationError(CptselError):
    """A directory that is not what it says it is (exit code 4)."""

    exit_code = 4


class PartialError(CptselError):
    """Some shards failed and the others are done; running the same command again resumes (exit code 5)."""

    exit_code = 5


class NoRoomError(PartialError):
    """A disk is full (exit code 5)."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, cut to 200 characters: enough for one sentence of ours."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
