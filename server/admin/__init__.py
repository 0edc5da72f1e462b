"""What operators do, over HTTP and by `chat users`: one use case a method, each recorded as an action."""
