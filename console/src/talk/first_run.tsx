// An empty conversation: what this is, and how to begin.
import { about } from "../platform/about";
import { Button } from "../ui/button";
import { send } from "./commands";
import { words } from "./words";

export function FirstRun() {
  const t = words();
  return (
    <div class="first-run">
      <img src="/icon.svg" alt="" />
      <h2>{t.welcome}</h2>
      <p class="soft">{t.welcomeText}</p>
      <div class="examples" role="group" aria-label={t.tryThese}>
        {[t.example1, t.example2, t.example3].map((text) => <Button key={text} onClick={() => send(text)}>{text}</Button>)}
      </div>
      {about.value?.model.is_demo && (
        <div class="small soft demo">
          <p>{t.demo}</p>
          {about.value.environment !== "production" && <p>{t.demoHow} <code dir="ltr">OPENAI_API_KEY=sk-… uv run chat up</code></p>}
        </div>
      )}
    </div>
  );
}
