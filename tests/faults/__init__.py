"""The platform with faults: servers that are killed and frozen, networks that stall, break and throttle."""
