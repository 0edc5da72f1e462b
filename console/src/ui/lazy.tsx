import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Problem, Waiting } from "./states";
import { words } from "./words";
import { ChatError } from "@ai-chat-platform/client";

/** A view whose code is loaded when it is opened first. */
export function lazy<P extends object>(load: () => Promise<{ default: ComponentType<P> }>): ComponentType<P> {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [View, setView] = useState<ComponentType<P> | null>(() => loaded);
    const [error, setError] = useState<ChatError | null>(null);
    const begin = () =>
      load().then(
        (module) => {
          loaded = module.default;
          setView(() => module.default);
        },
        (cause) => setError(new ChatError("network", words().notLoaded, { retryable: true }, cause)),
      );
    useEffect(() => {
      if (!loaded) void begin();
    }, []);
    if (View) return <View {...props} />;
    // A part that a newer release has replaced is not there any more: reloading brings the newer page.
    return error ? <Problem error={error} own={{ network: words().notLoaded }} onRetry={() => location.reload()} /> : <Waiting />;
  };
}
