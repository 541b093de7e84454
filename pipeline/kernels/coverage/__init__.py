"""Coverage: medoids that stand for their neighbours."""
