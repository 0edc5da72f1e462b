"""The demo model: a small OpenAI-compatible server that stands in for a language model when no API key is set.

It reads its prompt, calls the memory tool when told to remember, and answers from what is remembered, so that memory,
tools, streaming, token counts and billing run for real. It knows nothing else and says so. Touches only its own port.
"""
