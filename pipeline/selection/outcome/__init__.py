"""From picks to a manifest: weights, phases, residuals, header, summary."""
