"""What a run lost of its corpus, told again by every command that builds on it."""

from collections.abc import Sequence

from cptsel.pipeline.summary import counted
from cptsel.schemas.headers import Damage, ManifestHeader, RunHeader


def damage_of(headers: Sequence[RunHeader]) -> Damage | None:
    """What runs lost of their corpus when they were made; None where nothing was lost.

    Pools of one corpus meet the same broken files, which count once: of such runs the one that lost most tells.
    """
    worst: dict[str, Damage] = {}
    for header in headers:
        totals = header.get("totals", {})
        damage: Damage = {
            "shards": totals.get("shards_damaged", 0),
            "bytes_lost": totals.get("bytes_lost", 0),
            "bytes": header["corpus"]["bytes"],
        }
        corpus = header["fingerprints"]["corpus"]
        worst[corpus] = max(worst.get(corpus, damage), damage, key=lambda one: (one["bytes_lost"], one["shards"]))
    shards = sum(damage["shards"] for damage in worst.values())
    if not shards:
        return None
    return {
        "shards": shards,
        "bytes_lost": sum(damage["bytes_lost"] for damage in worst.values()),
        "bytes": sum(damage["bytes"] for damage in worst.values()),
    }


def run_warnings(header: RunHeader) -> list[str]:
    """One sentence about a damaged run, none about a sound one."""
    return _warnings(damage_of([header]))


def manifest_warnings(header: ManifestHeader) -> list[str]:
    """One sentence about a manifest from damaged runs, none about others."""
    return _warnings(header["corpus"].get("damage"))


def _warnings(damage: Damage | None) -> list[str]:
    if damage is None:
        return []
    shards = counted(damage["shards"], "shard")
    if not damage["bytes_lost"]:  # which have no bytes, where their format has some in any case
        return [f"the corpus was damaged when it was embedded: {shards} of 0 bytes; nothing stands for what was lost"]
    lost = counted(damage["bytes_lost"], "byte")
    share = damage["bytes_lost"] / max(1, damage["bytes"])
    return [
        f"the corpus was damaged when it was embedded: {shards}, of which {lost} ({share:.2%} of the corpus) are lost; "
        "nothing stands for what was in them"
    ]
