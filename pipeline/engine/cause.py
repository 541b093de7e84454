"""The line of a runner's error that tells most. Engines bring back tracebacks of Python and of Java as text."""

import re

import grpc

_JOB = re.compile(r"^Pipeline \S+ failed in state \w+: ")
_PYTHON = "Traceback (most recent call last)"
_RAISED = re.compile(r"^[\w.]+: .*\[while running ", re.MULTILINE)
_CAUSED = "Caused by: "
_MOST = 300  # characters


def cause_of(error: BaseException) -> str:
    """One line of an error's text, cut: of Python's what was raised, of Java's what caused it, else the last.

    Args:
        error: of a runner, or of gRPC.
    """
    text = str(error)
    if isinstance(error, grpc.RpcError) and callable(details := getattr(error, "details", None)):
        text = details() or text  # str() of it is a report of many lines
    lines = [line.strip() for line in _JOB.sub("", text.strip()).splitlines()]
    lines = [line for line in lines if line and line != "Driver stacktrace:"]
    told = [line for line in lines if not line.startswith("at ")]
    if raised := [line for line in told if _RAISED.match(line)]:
        chosen = raised[-1]
    elif len(told) < len(lines) and _PYTHON not in text:  # Java's
        causes = [line.removeprefix(_CAUSED) for line in told if line.startswith(_CAUSED)] or told[:1]
        chosen = causes[-1]
        for cause in reversed(causes):  # one that says the same, and more
            if chosen.partition(": ")[2] in cause:
                chosen = cause
    else:
        chosen = (told or [type(error).__name__])[-1]
    return chosen[:_MOST]
