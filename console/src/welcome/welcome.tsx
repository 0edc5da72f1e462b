// What this is, and how one comes in. Each form has an address of its own, so that a reload keeps its place.
import "./welcome.css";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { about, isOffline } from "../platform/about";
import { route } from "../platform/route";
import { farewell, signedOutBecause } from "../platform/session";
import { LanguageChooser, ThemeChooser } from "../ui/choosers";
import { Icon, type IconName } from "../ui/icon";
import { Notice } from "../ui/states";
import { Confirm } from "./confirm";
import { Demo } from "./demo";
import { leaveWelcome, notePlace } from "./place";
import { Recover } from "./recover";
import { SignIn } from "./sign_in";
import { SignUp } from "./sign_up";
import { words } from "./words";

const FORMS = { "sign-in": SignIn, "sign-up": SignUp, confirm: Confirm, recover: Recover };
type FormName = keyof typeof FORMS;
const TITLES = { "sign-in": "signIn", "sign-up": "create", confirm: "confirm", recover: "recover" } as const;
const isForm = (name: string | undefined): name is FormName => name !== undefined && Object.hasOwn(FORMS, name);

/** That of the address; elsewhere the sign-in, after which the address is shown. */
function shownForm(): FormName {
  const [view, name] = route.value;
  if (view === "welcome" && isForm(name)) return name;
  return "sign-in";
}

export default function Welcome() {
  const t = words();
  const name = shownForm();
  const Form = FORMS[name];
  const card = useRef<HTMLDivElement>(null);
  const first = useRef(true);
  useEffect(() => (notePlace(), leaveWelcome), []);
  useEffect(() => {
    document.title = `${t[TITLES[name]]} · AI Chat Platform`;
    if (!first.current) card.current?.querySelector<HTMLElement>("input:not([hidden])")?.focus();
    first.current = false;
  }, [name, t]);
  return (
    <div class="welcome" data-form={name}>
      <header class="row apart">
        <span class="brand">
          <img src="/icon.svg" alt="" />
          AI Chat
        </span>
        <div class="row">
          <LanguageChooser isCompact />
          <ThemeChooser isCompact />
        </div>
      </header>
      <main>
        <section class="stack pitch">
          <h1>{t.title}</h1>
          <p class="lead">{t.lead}</p>
          <ul class="points">
            <Point icon="memory">{t.pointMemory}</Point>
            <Point icon="devices">{t.pointDevices}</Point>
            <Point icon="usage">{t.pointCost}</Point>
          </ul>
        </section>
        <div class="stack">
          <Reason />
          {isOffline.value && <div role="status"><Notice kind="warn">{t.offline}</Notice></div>}
          <div class="card stack" key={name} ref={card}>
            <Form />
          </div>
          {name.startsWith("sign") && about.value?.demo_user && <Demo user={about.value.demo_user} />}
          {about.value?.model.is_demo && <p class="small soft">{t.demoModel}</p>}
        </div>
      </main>
    </div>
  );
}

function Point({ icon, children }: { icon: IconName; children: ComponentChildren }) {
  return <li><Icon name={icon} />{children}</li>;
}

/** Why somebody is here who was signed in before. */
function Reason() {
  const t = words();
  const because = signedOutBecause.value;
  const left = farewell.value;
  const notice = useRef<HTMLDivElement>(null);
  useEffect(() => notice.current?.focus(), [because, left]);
  if (left === "deleted" || left === "deleting")
    return <div ref={notice} role="status" tabIndex={-1}><Notice kind="good"><strong>{t.farewell}</strong><br />{t[left]}</Notice></div>;
  if (!because) return null;
  const isBlocked = because.code === "account_blocked";
  return (
    <div ref={notice} role="status" tabIndex={-1}>
      <Notice kind={isBlocked ? "bad" : "warn"}><strong>{t.because}</strong><br />{isBlocked ? t.blocked : t.ended}</Notice>
    </div>
  );
}
