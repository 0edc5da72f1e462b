"""Redis 6.2 or newer: each session's log as a stream that every instance reads, and control messages."""
