"""The wire of the platform without any input or output: codes, cursors, frames, events, shapes and limits."""
