"""The demo model: a small OpenAI-compatible server that stands in for a language model when no API key is set.

It reads its prompt, calls the memory tool when asked to remember, and answers from memory, so that memory, tools,
streaming, token counts and billing can be tried without a language model. It uses only its own port.
"""
