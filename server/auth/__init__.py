"""Who is asking: tokens and tickets, and how often a password may be tried. Knows no transport."""
