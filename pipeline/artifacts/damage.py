"""What a run lost of its corpus, told again by every command that builds on it."""

from collections.abc import Sequence

from cptsel.schemas.headers import Damage, ManifestHeader, RunHeader


def damage_of(headers: Sequence[RunHeader]) -> Damage | None:
    """What runs lost of their corpus when they were made; None where nothing was lost."""
    totals = [header.get("totals", {}) for header in headers]
    shards = sum(of_run.get("shards_damaged", 0) for of_run in totals)
    if not shards:
        return None
    return {
        "shards": shards,
        "bytes_lost": sum(of_run.get("bytes_lost", 0) for of_run in totals),
        "bytes": sum(header["corpus"]["bytes"] for header in headers),
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
    shards = f"{damage['shards']:,} shard" + ("s" if damage["shards"] > 1 else "")
    share = damage["bytes_lost"] / max(1, damage["bytes"])
    return [
        f"the corpus was damaged when it was embedded: {shards}, of which {damage['bytes_lost']:,} "
        f"bytes ({share:.2%} of the corpus) are lost; nothing stands for what was in them"
    ]
