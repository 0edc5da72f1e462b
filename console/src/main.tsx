import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import { render } from "preact";
import { readAbout } from "./platform/about";
import { followSession } from "./platform/conversation";
import { user } from "./platform/session";
import { Shell } from "./shell";
import { Toasts } from "./ui/toast";
import { WelcomeView } from "./views";

function App() {
  return (
    <>
      {user.value ? <Shell key={user.value.id} /> : <WelcomeView />}
      <Toasts />
    </>
  );
}

followSession();
void readAbout();
// After the page is complete: its files are stored, so that it opens without a network.
if (import.meta.env.PROD && "serviceWorker" in navigator) addEventListener("load", () => void navigator.serviceWorker.register("/sw.js").catch(() => {}));
render(<App />, document.getElementById("app")!);
