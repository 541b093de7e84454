"""What passes hand to each other on disk: runs, manifests, and the rules of an output directory."""
