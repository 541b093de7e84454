"""Which windows go through the model together."""

from collections.abc import Iterator, Sequence

CHUNK_BATCHES = 4
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 32768}  # a CPU is fastest while activations stay near its caches


def chunks(places: Sequence[float], lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices of windows in order of their documents' places in the pool, cut after so many tokens.

    Only inside a chunk are windows sorted by length. It ends after ``CHUNK_BATCHES`` times ``tokens_per_batch``. What a
    larger pool has beside comes behind, so that all chunks but the last stay as they were.
    """
    found: list[list[int]] = []
    room = 0
    for index in sorted(range(len(places)), key=lambda i: places[i]):  # stable: windows of a document stay in order
        if room <= 0:
            found.append([])
            room = CHUNK_BATCHES * tokens_per_batch
        found[-1].append(index)
        room -= lengths[index]
    return found


def batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of windows, longest first (ties as they come), cut so that padded tokens fit ``tokens_per_batch``.

    A window longer than the budget makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
