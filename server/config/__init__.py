"""Settings of a deployment: the variables, their validation, and where they are read from."""
