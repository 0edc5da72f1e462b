"""The platform with things breaking: servers that are killed and frozen, networks that stall, cut and trickle."""
