// The account: who one is, how one signs in and where, keys for programs, and the way out. Each part has its own address.
import "./account.css";
import { useEffect, useRef } from "preact/hooks";
import { route, to } from "../platform/route";
import { ApiKeys } from "./api_keys";
import { Data } from "./data";
import { Profile } from "./profile";
import { Security } from "./security";
import { words } from "./words";

const PARTS = { profile: Profile, security: Security, keys: ApiKeys, data: Data };
type PartName = keyof typeof PARTS;
const NAMES = Object.keys(PARTS) as PartName[];

export default function Account() {
  const t = words();
  const here = NAMES.find((name) => name === route.value[1]) ?? "profile";
  const Part = PARTS[here];
  const parts = useRef<HTMLElement>(null);
  useEffect(() => parts.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" }), [here]);
  return (
    <div class="page account">
      <h1>{t.title}</h1>
      <nav ref={parts} class="parts" aria-label={t.sections}>
        {NAMES.map((name) => (
          <a key={name} href={to("account", name)} aria-current={name === here ? "page" : undefined}>{t[name]}</a>
        ))}
      </nav>
      <Part />
    </div>
  );
}
