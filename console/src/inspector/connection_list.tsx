// The last connections in sentences: where each began, whether it resumed, what was replayed, how it ended.
import { useMemo } from "preact/hooks";
import { wire } from "../platform/wire_tap";
import { type ConnectionRecord, connectionsOf } from "./connections";
import { clock } from "./clock";
import { words } from "./words";

const MOST = 4;

export function Connections() {
  const t = words();
  const entries = wire.value;
  const found = useMemo(() => connectionsOf(entries), [entries]);
  return (
    <section class="card stack tight" aria-label={t.connections}>
      <h2>{t.connections}</h2>
      {found.length === 0 && <p class="soft">{t.none}</p>}
      <ol class="connections">
        {found.slice(0, MOST).map((one) => <Connection key={one.id} of={one} />)}
      </ol>
    </section>
  );
}

function Connection({ of: { openedAt, after, ready, replayed, events, lastSeq, end } }: { of: ConnectionRecord }) {
  const t = words();
  const epoch = ready?.cursor.split(":")[0];
  return (
    <li>
      <div class="row">
        <strong>{t.opened(clock(openedAt))}</strong>
        {ready?.resumed && <span class="badge good">{t.resumed}</span>}
        {replayed > 0 && <span class="badge good">{t.replayed(replayed)}</span>}
        {end ? <span class={`badge ${end.isCut ? "bad" : "warn"}`}>{end.isCut ? t.wasCut(clock(end.at)) : t.closed(clock(end.at), String(end.code ?? "?"))}</span> : <span class="badge">{t.isOpen}</span>}
      </div>
      <p class="small soft">
        {[
          after ? t.afterCursor(after) : t.fresh,
          ready === null && !end && t.waiting,
          ready && after && !ready.resumed && t.notResumed,
          events > 0 && `${t.events(events)}${lastSeq !== null && epoch ? ` ${t.upTo(`${epoch}:${lastSeq}`)}` : ""}`,
        ].filter(Boolean).join(" · ")}
      </p>
    </li>
  );
}
