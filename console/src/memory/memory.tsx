// The memory as a page.
import MemoryPanel from "./panel";
import { words } from "./words";

export default function Memory() {
  const t = words();
  return (
    <div class="page">
      <div class="stack">
        <div class="stack tight">
          <h1>{t.title}</h1>
          <p class="soft">{t.lead}</p>
        </div>
        <MemoryPanel />
      </div>
    </div>
  );
}
