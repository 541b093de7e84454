"""cut_windows against its definition, on invented offsets and on those of a real tokenizer."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.windows import cut_windows

REPOSITORY = Path(__file__).parent.parent
SHARED = Path(os.environ.get("CPTSEL_SHARED", REPOSITORY.parent / "shared"))
TOKENIZERS = [REPOSITORY / "sample_data" / "tiny-lm", SHARED / "models" / "pocket-lm"]


def brute_force(starts, ends, n_chars, max_tokens):
    """The definition, token by token: [(token_start, token_end, char_start, char_end, splittable)]."""
    n_tokens = len(starts)
    text_before = [max([0, *ends[:token]]) for token in range(n_tokens)]
    windows, begin = [], 0
    while begin < n_tokens:
        here = text_before[begin]
        cut = None  # the last allowed one within reach, else the first
        for token in range(begin + 1, n_tokens + 1):
            allowed = token == n_tokens or (starts[token] >= text_before[token] and here < text_before[token] < n_chars)
            if allowed and (cut is None or token <= begin + max_tokens):
                cut = token
            if token > begin + max_tokens and cut is not None:
                break
        windows.append((begin, cut, here, n_chars if cut == n_tokens else text_before[cut], cut - begin <= max_tokens))
        begin = cut
    return windows


def as_tuples(windows):
    ends = windows.token_start + windows.token_count
    return list(
        zip(
            windows.token_start.tolist(),
            ends.tolist(),
            windows.char_start.tolist(),
            windows.char_end.tolist(),
            windows.splittable.tolist(),
            strict=True,
        )
    )


@st.composite
def offsets(draw):
    """Offsets as tokenizers give them (shared code points, gaps, no width), and any others."""
    n_chars = draw(st.integers(1, 30))
    place = st.integers(0, n_chars)
    spans = draw(st.lists(st.tuples(place, place).map(sorted), max_size=40))
    if draw(st.booleans()):
        spans.sort()
    return [span[0] for span in spans], [span[1] for span in spans], n_chars


@given(offsets(), st.integers(1, 12))
def test_equals_the_definition(document, max_tokens):
    starts, ends, n_chars = document
    windows = cut_windows(np.array(starts), np.array(ends), n_chars, max_tokens)
    assert as_tuples(windows) == brute_force(starts, ends, n_chars, max_tokens)


@given(offsets(), st.integers(1, 12))
def test_tiles_tokens_and_text(document, max_tokens):
    starts, ends, n_chars = document
    windows = as_tuples(cut_windows(np.array(starts), np.array(ends), n_chars, max_tokens))
    if not starts:
        assert windows == []
        return
    assert (windows[0][0], windows[0][2]) == (0, 0)
    assert (windows[-1][1], windows[-1][3]) == (len(starts), n_chars)
    for before, after in pairwise(windows):
        assert before[1] == after[0]
        assert before[3] == after[2]
    for token_start, token_end, char_start, char_end, splittable in windows:
        assert char_start < char_end
        assert splittable == (token_end - token_start <= max_tokens)


def test_a_gap_goes_to_the_following_window():
    windows = cut_windows(np.array([1, 4, 8]), np.array([3, 7, 9]), 11, 1)  # "_aa_bbb_c__"
    assert windows.char_start.tolist() == [0, 3, 7]
    assert windows.char_end.tolist() == [3, 7, 11]


def test_tokens_of_one_code_point_stay_together():
    starts, ends = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([1, 1, 1, 1, 2, 2, 3])
    windows = cut_windows(starts, ends, 3, 3)
    assert windows.token_count.tolist() == [4, 3]
    assert windows.splittable.tolist() == [False, True]


def test_no_tokens_give_no_windows():
    assert len(cut_windows(np.zeros(0, np.int64), np.zeros(0, np.int64), 5, 4).token_start) == 0


def test_a_million_tokens():
    edges = np.arange(1_000_001)
    windows = cut_windows(edges[:-1], edges[1:], 1_000_000, 512)
    assert windows.token_count.tolist() == [512] * 1953 + [64]


@pytest.mark.parametrize(
    ("starts", "ends", "n_chars", "max_tokens", "phrase"),
    [
        ([0], [1], 1, 0, "max_tokens must be at least 1"),
        ([0, 1], [1], 2, 4, "of one length"),
        ([0], [3], 2, 4, "outside the text of 2"),
        ([-1], [1], 2, 4, "outside the text of 2"),
    ],
)
def test_refuses(starts, ends, n_chars, max_tokens, phrase):
    with pytest.raises(ValueError, match=phrase):
        cut_windows(np.array(starts), np.array(ends), n_chars, max_tokens)


TEXTS = [
    "Plain English, with  two spaces\n\n\tand a tab. " * 20,
    "Ein Übermaß an Größe – naïveté, œuvre, garçon. " * 15,
    "Съешь же ещё этих мягких французских булок. " * 15,
    "自然言語処理は面白い。模型不会忘记。한국어도 있다. " * 15,
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flags 🇩🇪🇯🇵 e\u0301 combining \U0001f9ec " * 15,
    " \u00a0\u2028 leading and trailing \u3000 ",
    "def f(x):\n    return {'ключ': [x, '値', \"🙂\"]}\n" * 15,
]


@pytest.mark.parametrize("directory", TOKENIZERS, ids=lambda directory: directory.name)
def test_with_a_real_tokenizer(directory):
    if not (directory / "tokenizer.json").exists():
        pytest.skip(f"no tokenizer at {directory}")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    shared_code_points = 0
    for text in TEXTS:
        spans = tokenizer.encode(text, add_special_tokens=False).offsets
        starts, ends = [span[0] for span in spans], [span[1] for span in spans]
        shared_code_points += sum(a == b for a, b in pairwise(spans))
        for max_tokens in (1, 2, 5, 64, 10_000):
            windows = as_tuples(cut_windows(np.array(starts), np.array(ends), len(text), max_tokens))
            assert windows == brute_force(starts, ends, len(text), max_tokens)
            assert "".join(text[start:end] for _, _, start, end, _ in windows) == text
    assert shared_code_points > 50, "the texts no longer have code points of several tokens"
