"""Authentication by tokens and tickets, and rate limits of passwords. Independent of the transport."""
