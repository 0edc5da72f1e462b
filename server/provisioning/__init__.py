"""Gives every user an account at LiteLLM and an agent at Letta: a saga of repeatable steps that survives any crash.

Core: knows the ports and the key ring, no service. `Provisioner` is the interface for the rest of the platform."""

from server.provisioning.provisioner import Provisioner
from server.provisioning.repair import RepairLoop
from server.provisioning.saga import Observer, ProvisioningError
from server.provisioning.steps import ProvisioningContext, is_complete

__all__ = ["Observer", "Provisioner", "ProvisioningContext", "ProvisioningError", "RepairLoop", "is_complete"]
