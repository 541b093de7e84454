"""What comes from a corpus, a manifest or a file name is printed so that it can't move the cursor or hide itself."""

import re

# Control characters (C0, DEL, C1), marks and overrides of direction, line and paragraph separators, lone surrogates.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(text: str, keep: str = "") -> str:
    """Text with every character that a terminal would act on written as Python writes it: ``\\x1b``, ``\\u202e``.

    Args:
        text: to be printed.
        keep: such characters that stay as they are.
    """
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def visible_json(text: str) -> str:
    """JSON in which these characters are escapes of JSON's own; line ends between its values stay."""
    return _HIDDEN.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]
