"""The event log of a session: numbered and delivered by its owner, replicated to the instances that follow it."""
