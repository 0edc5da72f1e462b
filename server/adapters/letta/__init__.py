"""Letta 0.16, behind the ports `AgentGateway`, `AgentMemory` and `AgentDirectory`."""
