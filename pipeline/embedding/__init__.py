"""The embed pass: plan, blocks, Beam transforms, report, estimate."""
