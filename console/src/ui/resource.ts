// Something that a view reads from the server: waiting, the data, or what went wrong.
import type { ChatError } from "@ai-chat-platform/client";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Resource<T> {
  data: T | null;
  error: ChatError | null;
  isLoading: boolean;
  /** Read again. The data stay until the new ones are here. */
  reload: () => void;
  /** Show what a change has answered, without reading again. */
  set: (data: T) => void;
}

/** Reads once for each change of `inputs`. An answer that comes after the next request is ignored. */
export function useResource<T>(read: () => Promise<T>, inputs: readonly unknown[]): Resource<T> {
  const [state, setState] = useState<{ data: T | null; error: ChatError | null; isLoading: boolean }>({ data: null, error: null, isLoading: true });
  const latest = useRef(0);
  const reload = useCallback(() => {
    const mine = ++latest.current;
    setState((shown) => ({ ...shown, isLoading: true }));
    read().then(
      (data) => mine === latest.current && setState({ data, error: null, isLoading: false }),
      (error: ChatError) => mine === latest.current && setState((shown) => ({ ...shown, error, isLoading: false })),
    );
  }, inputs);
  useEffect(() => {
    reload();
    return () => void latest.current++;
  }, [reload]);
  const set = useCallback((data: T) => {
    latest.current++;
    setState({ data, error: null, isLoading: false });
  }, []);
  return { ...state, reload, set };
}
