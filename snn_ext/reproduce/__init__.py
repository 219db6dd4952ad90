"""Studies on real data: what the papers claim, measured in paired runs over several seeds."""
