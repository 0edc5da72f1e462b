"""`chat doctor`: checks of services and settings, with instructions to fix problems. Changes nothing.

One module per service, each a list of small checks. Besides the wiring, only this package imports the adapters."""
