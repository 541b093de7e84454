"""Where work runs: Beam, the steps of a pass, worker processes, progress."""
