"""Tensors between the host and a GPU, without making the host wait."""

import torch


def to_device(values: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the host on a device. On its way to a GPU it is pinned, so that the copy runs beside the host.

    The allocator of pinned memory keeps it until the copy is done.
    """
    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def real_positions(lengths: torch.Tensor, steps: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample and step of every position that is no padding, in order, as an index of a batch (B, T, ...).

    They are found where ``lengths`` lie: of lengths on the host a GPU need not be asked how many there are, which would
    wait for all that it has to do.

    Args:
        lengths: (B,) int64, positions of each sample.
        steps: T.
        device: of the batch.

    Returns:
        Two int64 tensors (N,) on the device.
    """
    samples, places = (torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)).nonzero(as_tuple=True)
    return to_device(samples, device), to_device(places, device)
