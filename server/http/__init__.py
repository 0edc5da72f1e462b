"""What every request passes, whatever it asks for: from the connection to the declaration of a route."""
