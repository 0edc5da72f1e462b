// The operators' part: users, usage of all, the audit, the health of the services.
import "./admin.css";
import { parameters, route, to } from "../platform/route";
import { Audit } from "./audit";
import { Health } from "./health";
import { UsageOfAll } from "./usage_of_all";
import { UserPage } from "./user";
import { Users } from "./users";
import { words } from "./words";

const PARTS = ["users", "usage", "audit", "health"] as const;

export default function Admin() {
  const t = words();
  const [, name, id] = route.value;
  const here = PARTS.find((part) => part === name) ?? "users";
  return (
    <div class="page admin">
      <div class="stack">
        <h1>{t.title}</h1>
        <nav class="tabs" aria-label={t.parts}>
          {PARTS.map((part) => (
            <a key={part} href={to("admin", part)} aria-current={part === here ? "page" : undefined}>{t[part]}</a>
          ))}
        </nav>
        {here === "users" && (id ? <UserPage key={id} id={id} /> : <Users />)}
        {here === "usage" && <UsageOfAll />}
        {here === "audit" && <Audit key={parameters.value.get("user_id")} />}
        {here === "health" && <Health />}
      </div>
    </div>
  );
}
