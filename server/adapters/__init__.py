"""One package per vendor, behind the ports. Each vendor's words stay in its package; none knows another."""
