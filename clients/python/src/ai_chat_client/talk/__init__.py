"""The chat in a terminal: `chat talk`. It is an app on this package and needs its extra `talk`; nothing else of the
package imports it."""
