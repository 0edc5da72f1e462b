"""`chat doctor`: what is wrong with the services and settings, and how to mend it. Changes nothing anywhere.

One module per service, each a list of small checks; knows the adapters, as only the wiring does besides."""
