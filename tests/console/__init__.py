"""The console in a real browser, on the whole stack: what a person sees and does, by roles and names as they are read
out, never by the page's structure."""
