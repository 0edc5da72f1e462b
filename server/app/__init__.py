"""The wiring: opens the adapters, hands each collaborator to those who need it, and runs the whole."""
