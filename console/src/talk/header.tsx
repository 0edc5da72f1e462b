// Above the conversation: the state of the connection, the devices that are connected, the search, the memory.
import type { SignIns } from "@ai-chat-platform/client/wire";
import { useComputed } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { deviceName } from "../account/user_agent";
import { get } from "../platform/api";
import { conversation } from "../platform/conversation";
import { moment } from "../platform/format";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { useResource } from "../ui/resource";
import { Empty, Loaded } from "../ui/states";
import { words } from "./words";

const DEVICES_EVERY = 30_000; // ms

interface HeaderProps {
  isMemoryOpen: boolean;
  onSearch: () => void;
  onMemory: () => void;
}

export function Header({ isMemoryOpen, onSearch, onMemory }: HeaderProps) {
  const t = words();
  const connection = useComputed(() => conversation.value.connection).value;
  const state = { connecting: t.connecting, online: t.online, offline: t.noConnection, closed: t.disconnected }[connection];
  return (
    <header class="talk-head">
      <h1>{t.title}</h1>
      <span class="connection" role="status" data-state={connection}>{state}</span>
      <span class="grow" />
      <Devices />
      <Button kind="plain" icon="search" label={t.searchKey} onClick={onSearch} aria-keyshortcuts="Control+K Meta+K" />
      <Button class="memory-button" kind="plain" icon="memory" label={isMemoryOpen ? t.hideMemory : t.showMemory} aria-expanded={isMemoryOpen} onClick={onMemory} />
    </header>
  );
}

/** How many devices are connected; pressed, which. Asked for now and then while the page is looked at. */
function Devices() {
  const t = words();
  const connection = useComputed(() => conversation.value.connection).value;
  const [isOpen, setOpen] = useState(false);
  const devices = useResource(() => get<SignIns>("auth/sessions"), [connection === "online"]);
  useEffect(() => {
    const look = () => document.visibilityState === "visible" && devices.reload();
    const timer = setInterval(look, DEVICES_EVERY);
    document.addEventListener("visibilitychange", look);
    return () => (clearInterval(timer), document.removeEventListener("visibilitychange", look));
  }, [devices.reload]);
  const number = devices.data?.connections.length;
  return (
    <>
      {number !== undefined && connection === "online" && (
        <Button kind="plain" small onClick={() => (devices.reload(), setOpen(true))}>{t.devices(number)}</Button>
      )}
      {isOpen && (
        <Dialog title={t.devicesTitle} onClose={() => setOpen(false)}>
          <p class="soft">{t.devicesHint}</p>
          <Loaded from={devices}>{(data) => <DeviceList {...data} />}</Loaded>
        </Dialog>
      )}
    </>
  );
}

function DeviceList({ data, connections }: SignIns) {
  const t = words();
  if (!connections.length) return <Empty icon="wire" title={t.noDevices} />;
  return (
    <ul class="devices">
      {connections.map(({ opened_at, session_id, api_key_id }) => {
        const signIn = data.find(({ id }) => id === session_id);
        const name = api_key_id ? t.apiKey : (deviceName(signIn?.user_agent ?? null, t.onSystem) ?? t.unknownDevice);
        return (
          <li key={`${session_id}${opened_at}`}>
            <strong>{name}</strong>{signIn?.current && <span class="badge good">{t.thisDevice}</span>}
            <span class="small soft">{t.connectedSince(moment(opened_at))}{signIn?.address && ` · ${signIn.address}`}</span>
          </li>
        );
      })}
    </ul>
  );
}
