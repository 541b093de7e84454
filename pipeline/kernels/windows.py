"""Windows: a document's tokens cut into the longest runs that begin and end at code points (docs/design.md, Windows).

Tokenizers that work on bytes spread one code point over several tokens; a cut between those would leave neither window
with text of its own. So a token may begin a window only where its offset is at or past every earlier token's end.
"""

from bisect import bisect_right
from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Windows of one document, in order; they tile both its tokens and its text.

    Attributes:
        token_start: (w,) int64, first token.
        token_count: (w,) int64, at least 1.
        char_start, char_end: (w,) int64, half-open span in code points, never empty where the text is not.
        splittable: (w,) bool; False where no cut was allowed within ``max_tokens``, so that the window holds more.
    """

    token_start: np.ndarray
    token_count: np.ndarray
    char_start: np.ndarray
    char_end: np.ndarray
    splittable: np.ndarray


def cut_windows(starts: np.ndarray, ends: np.ndarray, n_chars: int, max_tokens: int) -> Windows:
    """Cut a document greedily into the longest windows of at most ``max_tokens`` tokens.

    A window's text begins where all earlier tokens have ended, so text between tokens (a space that the tokenizer's
    offsets leave out) belongs to the window of the token after it, and text after the last token to the last window.
    A cut that would leave a window without text (between tokens of no width) is not made.
    Where there is no cut within reach, the tokens up to the next one are one window that is marked not ``splittable``.

    Args:
        starts: (t,) integers, where each token begins, in code points.
        ends: (t,) integers, where each token ends.
        n_chars: code points of the text.
        max_tokens: longest window, in tokens.

    Returns:
        Windows; none where there are no tokens.

    Raises:
        ValueError: ``max_tokens`` below 1, arrays of different lengths, or offsets outside the text.
    """
    starts, ends = np.asarray(starts, dtype=np.int64), np.asarray(ends, dtype=np.int64)
    n_tokens = len(starts)
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    if starts.shape != ends.shape or starts.ndim != 1:
        raise ValueError(f"starts and ends must be vectors of one length, not {starts.shape} and {ends.shape}")
    if n_tokens and (starts.min() < 0 or max(starts.max(), ends.max()) > n_chars):
        raise ValueError(f"token offsets lie outside the text of {n_chars} code points")

    reached = np.maximum.accumulate(np.concatenate([np.zeros(1, np.int64), ends]))  # [t]: by the tokens before t
    before = reached[:-1]
    cuts = np.flatnonzero((starts >= before) & (before > 0) & (before < n_chars))
    bounds, splittable = _greedy(cuts.tolist(), before[cuts].tolist(), n_tokens, max_tokens)
    edges = np.asarray(bounds, dtype=np.int64)
    chars = reached[edges]
    chars[0] = 0
    chars[-1] = n_chars
    return Windows(edges[:-1], np.diff(edges), chars[:-1], chars[1:], np.asarray(splittable, dtype=bool))


def _greedy(cuts: list[int], texts: list[int], n_tokens: int, max_tokens: int) -> tuple[list[int], list[bool]]:
    """Token bounds of the windows and whether each kept to ``max_tokens``.

    Args:
        cuts: tokens that may begin a window, ascending.
        texts: where the text of a window that begins there would begin; not descending.
        n_tokens: end of the last window.
        max_tokens: longest window.
    """
    bounds, splittable, text = [0], [], 0
    while bounds[-1] < n_tokens:
        begin = bounds[-1]
        cut = n_tokens
        if begin + max_tokens < n_tokens:
            index = bisect_right(cuts, begin + max_tokens) - 1
            if index < 0 or texts[index] <= text:  # none within reach that leaves text: on to the next that does
                index = bisect_right(texts, text)
            if index < len(cuts):
                cut, text = cuts[index], texts[index]
        splittable.append(cut - begin <= max_tokens)
        bounds.append(cut)
    return bounds, splittable
