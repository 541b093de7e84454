"""How far a choice reaches: one shard, or parts of a group that are merged."""
