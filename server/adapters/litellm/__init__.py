"""The LiteLLM proxy, behind the port `BillingGateway`."""
