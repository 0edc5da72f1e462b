// What the server says of itself before anybody has signed in.
import { signal } from "@preact/signals";
import { server } from "./session";

export interface About {
  version: string;
  environment: "development" | "production" | "test";
  model: { name: string; is_demo: boolean };
  sign_up: { is_open: boolean; domains: string[] | null; allows_anonymous: boolean };
  demo_user: { email: string; password: string } | null;
}

/** null until it is known; the page works without. */
export const about = signal<About | null>(null);
/** The server did not answer. It is asked again. */
export const isOffline = signal(false);

const AGAIN = 5000; // milliseconds

export async function readAbout(): Promise<void> {
  try {
    const answer = await fetch(`${server}/api/v1/about`);
    if (answer.ok) about.value = (await answer.json()) as About;
    isOffline.value = false;
  } catch {
    isOffline.value = true;
  }
  if (!about.value) setTimeout(() => void readAbout(), AGAIN);
}
addEventListener("online", () => void readAbout());
addEventListener("offline", () => (isOffline.value = true));
