// How a user's status and role look, wherever users are listed.
import type { AdminUser } from "@ai-chat-platform/client/wire";
import { user as self } from "../platform/session";
import { words } from "./words";

const KINDS = { active: "good", provisioning: "warn", failed: "bad", blocked: "bad", deleting: "warn" } as const;

export function StatusBadge({ status }: { status: AdminUser["agent_status"] }) {
  return <span class={`badge ${KINDS[status]}`}>{words()[status]}</span>;
}

export function RoleBadges({ user }: { user: AdminUser }) {
  const t = words();
  return (
    <>
      {user.is_admin && <span class="badge">{t.operator}</span>}
      {user.id === self.value?.id && <span class="badge">{t.you}</span>}
    </>
  );
}
