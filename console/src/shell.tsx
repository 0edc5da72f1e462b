// The frame of the signed-in console: where one can go, and the state of the connection.
import { useComputed } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { conversation } from "./platform/conversation";
import { dictionary } from "./platform/language";
import { route, to } from "./platform/route";
import { user } from "./platform/session";
import { AccountView, AdminView, InspectorView, MemoryView, TalkView, UsageView } from "./views";
import { isAdmin } from "./platform/rights";
import { about } from "./platform/about";
import { Icon, type IconName } from "./ui/icon";

const words = dictionary(
  {
    skip: "Skip to the content",
    talk: "Chat",
    memory: "Memory",
    usage: "Usage",
    account: "Account",
    admin: "Operate",
    inspector: "Inspector",
    navigation: "Views",
    connecting: "Connecting…",
    online: "Connected",
    offline: "No connection: trying again",
    closed: "Disconnected",
  },
  {
    skip: "К содержанию",
    talk: "Чат",
    memory: "Память",
    usage: "Расход",
    account: "Аккаунт",
    admin: "Админка",
    inspector: "Инспектор",
    navigation: "Разделы",
    connecting: "Подключение…",
    online: "На связи",
    offline: "Нет связи: пробуем снова",
    closed: "Отключено",
  },
);

interface Place {
  name: "talk" | "memory" | "usage" | "account" | "admin" | "inspector";
  icon: IconName;
}

function places(): Place[] {
  const all: Place[] = [
    { name: "talk", icon: "chat" },
    { name: "memory", icon: "memory" },
    { name: "usage", icon: "usage" },
    { name: "account", icon: "account" },
  ];
  if (isAdmin.value) all.push({ name: "admin", icon: "admin" });
  if (about.value && about.value.environment !== "production") all.push({ name: "inspector", icon: "wire" });
  return all;
}

const VIEWS = { talk: TalkView, memory: MemoryView, usage: UsageView, account: AccountView, admin: AdminView, inspector: InspectorView };

export function Shell() {
  const t = words();
  const shown = places();
  const here = shown.find(({ name }) => name === route.value[0])?.name ?? "talk";
  const View = VIEWS[here];
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${t[here]} · AI Chat Platform`;
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [here, t]);
  const connection = useComputed(() => conversation.value.connection).value;
  return (
    <div class="shell">
      <a class="button skip" href="#content" onClick={(event) => (event.preventDefault(), main.current?.focus())}>{t.skip}</a>
      <main id="content" ref={main} tabIndex={-1}>
        <View />
      </main>
      <header class="rail">
        <a class="brand" href={to("talk")}>
          <img src="/icon.svg" alt="" />
          AI Chat
        </a>
        <nav aria-label={t.navigation}>
          {shown.map(({ name, icon }) => (
            <a key={name} class="link" href={to(name)} aria-current={name === here ? "page" : undefined}>
              <Icon name={icon} />
              {t[name]}
            </a>
          ))}
        </nav>
        <div class="foot">
          <span class="small soft">{user.value?.name || user.value?.email}</span>
          <span class="connection" role="status" data-state={connection}>{t[connection]}</span>
        </div>
      </header>
    </div>
  );
}
