"""``snn-ext bench``: what the neurons cost beside the frameworks' own, beside a copy, and inside networks."""
