// A list that the server gives in pages: the first ones, and more on demand.
import type { ChatError } from "@ai-chat-platform/client";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Page<T, C> {
  data: T[];
  has_more: boolean;
  next_cursor: C | null;
}

export interface Pages<T> {
  /** null until the first page is here. */
  items: T[] | null;
  hasMore: boolean;
  isLoading: boolean;
  error: ChatError | null;
  more: () => void;
  /** Begin again with the first page. What is shown stays until it is here. */
  reload: () => void;
}

interface State<T, C> {
  items: T[] | null;
  cursor: C | null;
  isLoading: boolean;
  error: ChatError | null;
}

/** Begins again at each change of `inputs`. Answers that come after the next request are ignored. */
export function usePages<T, C>(read: (cursor: C | null) => Promise<Page<T, C>>, inputs: readonly unknown[]): Pages<T> {
  const [state, setState] = useState<State<T, C>>({ items: null, cursor: null, isLoading: true, error: null });
  const latest = useRef(0);
  const request = (cursor: C | null) => {
    const mine = ++latest.current;
    setState((shown) => ({ ...shown, isLoading: true, error: null }));
    read(cursor).then(
      (page) => {
        if (mine !== latest.current) return;
        const next = page.has_more ? page.next_cursor : null;
        setState((shown) => ({ items: cursor === null ? page.data : [...(shown.items ?? []), ...page.data], cursor: next, isLoading: false, error: null }));
      },
      (error: ChatError) => mine === latest.current && setState((shown) => ({ ...shown, isLoading: false, error })),
    );
  };
  const reload = useCallback(() => request(null), inputs);
  useEffect(() => {
    reload();
    return () => void latest.current++;
  }, [reload]);
  const { items, cursor, isLoading, error } = state;
  return { items, hasMore: cursor !== null, isLoading, error, reload, more: () => request(cursor) };
}
