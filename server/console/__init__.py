"""The console's built files, in `files/`: what Vite makes of `console/`. `server.api.console` serves them."""
