"""What the core needs of the outside world, in the core's own words: Protocols and the types that cross them.

Adapters implement these and are known to `app.py` alone. Every method may raise `PlatformError` with the code of the
service behind it (`letta_unavailable`, `litellm_unavailable`, `supabase_unavailable`) when that service cannot answer.
"""

from server.ports.accounts import Account, AccountChange, AccountStore, ProvisioningClaim
from server.ports.agent import (
    AgentBusyError,
    AgentEvent,
    AgentGateway,
    AgentHandle,
    AgentMemory,
    ContextWindow,
    MemoryBlock,
    OutgoingMessage,
    Passage,
    PassagePage,
    ReasoningDelta,
    Run,
    RunEnded,
    RunStarted,
    StreamBrokenError,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.ports.billing import BillingGateway, Budget, ModelPrice, Plan
from server.ports.directory import AgentDirectory, AgentTemplate
from server.ports.health import Probe
from server.ports.identity import IdentityProvider, Principal, TokenPair, TokenVerifier
from server.ports.reads import MessagePage, Profile, UsageDay, UsageSum, UserReads
from server.ports.sessions import (
    Accepted,
    Claim,
    FencedError,
    Forgotten,
    Lease,
    NewTurn,
    SessionStore,
    Started,
    TurnEnd,
)

__all__ = [
    "Accepted",
    "Account",
    "AccountChange",
    "AccountStore",
    "AgentBusyError",
    "AgentDirectory",
    "AgentEvent",
    "AgentGateway",
    "AgentHandle",
    "AgentMemory",
    "AgentTemplate",
    "BillingGateway",
    "Budget",
    "Claim",
    "ContextWindow",
    "FencedError",
    "Forgotten",
    "IdentityProvider",
    "Lease",
    "MemoryBlock",
    "MessagePage",
    "ModelPrice",
    "NewTurn",
    "OutgoingMessage",
    "Passage",
    "PassagePage",
    "Plan",
    "Principal",
    "Probe",
    "Profile",
    "ProvisioningClaim",
    "ReasoningDelta",
    "Run",
    "RunEnded",
    "RunStarted",
    "SessionStore",
    "Started",
    "StreamBrokenError",
    "TextDelta",
    "TokenPair",
    "TokenVerifier",
    "ToolCalled",
    "ToolReturned",
    "TurnEnd",
    "UsageDay",
    "UsageReported",
    "UsageSum",
    "UserReads",
]
