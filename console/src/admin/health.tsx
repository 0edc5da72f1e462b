// Whether the server and its services work, and what to do about those that do not.
import type { Ready, ServiceHealth } from "@ai-chat-platform/client/wire";
import { Fragment } from "preact";
import { get } from "../platform/api";
import { ago, moment } from "../platform/format";
import { Button } from "../ui/button";
import { useResource } from "../ui/resource";
import { Loaded, Notice } from "../ui/states";
import { words } from "./health_words";

const LEVELS = { ok: "good", warn: "warn", fail: "bad" } as const;
const STATES = { ready: "good", degraded: "warn", starting: "warn", draining: "bad" } as const;

export function Health() {
  const t = words();
  const health = useResource(() => get<ServiceHealth>("admin/health"), []);
  return (
    <>
      <div class="row apart">
        <p class="soft">{health.data ? <time dateTime={health.data.checked_at} title={moment(health.data.checked_at)}>{t.checked(ago(health.data.checked_at))}</time> : t.intro}</p>
        <Button icon="retry" busy={health.isLoading} onClick={health.reload}>{t.again}</Button>
      </div>
      <Loaded from={health}>
        {({ instance, checks }) => (
          <>
            <Summary checks={checks} />
            <Instance ready={instance} />
            <Checks checks={checks} />
          </>
        )}
      </Loaded>
    </>
  );
}

function Summary({ checks }: { checks: ServiceHealth["checks"] }) {
  const t = words();
  const wrong = checks.filter(({ level }) => level !== "ok").length;
  const kind = checks.some(({ level }) => level === "fail") ? "bad" : wrong ? "warn" : "good";
  return <div role="status"><Notice kind={kind}>{wrong ? t.wrong(wrong) : t.allGood}</Notice></div>;
}

function Instance({ ready }: { ready: Ready }) {
  const t = words();
  return (
    <section class="card stack">
      <div class="row apart">
        <h2>{t.server} <span class="soft">{ready.version}</span></h2>
        <span class={`badge ${STATES[ready.status]}`}>{t[ready.status]}</span>
      </div>
      <p>{t[`${ready.status}More`]}</p>
      <dl class="facts">
        {Object.entries(ready.checks).map(([name, check]) => (
          <Fragment key={name}>
            <dt>{t.nameOf(name)}</dt>
            <dd>{check.status === "up" ? t.up(Math.max(1, Math.round(check.latency_ms))) : t.down}{check.error && <div class="small soft">{check.error}</div>}</dd>
          </Fragment>
        ))}
      </dl>
    </section>
  );
}

/** Services with a problem come first. */
function Checks({ checks }: { checks: ServiceHealth["checks"] }) {
  const t = words();
  const of = (service: string) => checks.filter((check) => check.service === service);
  const isWrong = (service: string) => of(service).some(({ level }) => level !== "ok");
  const services = [...new Set(checks.map(({ service }) => service))].sort((a, b) => Number(isWrong(b)) - Number(isWrong(a)));
  return (
    <>
      {services.map((service) => (
        <section key={service} class="card stack">
          <h2>{t.nameOf(service)}</h2>
          <ul class="checks">
            {of(service).map(({ name, level, message, remedy }) => (
              <li key={name}>
                <span class={`badge ${LEVELS[level]}`}>{t[level]}</span>
                <div>
                  {level === "ok" ? <p>{message}</p> : <p><strong>{message}</strong></p>}
                  {remedy && <p class="remedy">{t.toDo} {remedy}</p>}
                </div>
                <code class="soft">{name}</code>
              </li>
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}
