"""What a deployment sets: the variables, what they may look like, and where they are read from."""
