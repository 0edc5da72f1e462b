"""The application: opens the adapters, wires the components, and controls the life of the process."""
