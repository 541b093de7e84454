"""Reading corpora: shards, blocks of them, documents in them, and windows of documents."""
