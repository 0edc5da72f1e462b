"""The checklist of docs/protocol.md as a scripted server, for clients in any language. See README.md.

It imports nothing of the platform's server: `world` is the data of one pretended user, `run` one scenario that is being
played, `scenarios` are the scripts, and `server` is what a client connects to."""
