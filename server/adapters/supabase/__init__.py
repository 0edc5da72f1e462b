"""Supabase (Auth, PostgREST and our SQL functions), behind the stores, reads and identity ports."""
