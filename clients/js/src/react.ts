// The React entry: the state of a chat, and what one can do with it, as a hook.
import { useEffect, useMemo, useState, useSyncExternalStore } from "react";
import { type Chat, type ChatOptions, createChat } from "./chat.js";
import { type ChatState, INITIAL } from "./state.js";

export type AgentChat = ChatState &
  Pick<Chat, "send" | "interrupt" | "cancel" | "retry" | "discard" | "loadOlder" | "reconnect"> & {
    /** null until the component is mounted. */
    chat: Chat | null;
  };

const nothing = () => () => {};

/** Use a chat of your own (`createChat`), or let the hook make one for as long as the component is mounted.
 *
 * With options, a change of `url` begins a new chat; `getToken` is always the latest. To change the user, give the
 * component another `key`. */
export function useAgentChat(from: Chat | ChatOptions): AgentChat {
  const given = "getToken" in from ? null : from;
  const [own, setOwn] = useState<Chat | null>(null);
  const [latest] = useState({ options: from as ChatOptions });
  useEffect(() => {
    latest.options = from as ChatOptions;
  });
  const url = "getToken" in from ? from.url : null;
  useEffect(() => {
    if (url === null) return;
    const chat = createChat({ ...latest.options, getToken: (request) => latest.options.getToken(request) });
    setOwn(chat);
    return () => {
      chat.close();
      setOwn(null);
    };
  }, [url, latest]);

  const chat = given ?? own;
  const state = useSyncExternalStore(
    chat ? chat.subscribe : nothing,
    () => (chat ? chat.state : INITIAL),
    () => INITIAL,
  );
  const can = useMemo(() => actions(chat), [chat]);
  return useMemo(() => ({ ...state, ...can, chat }), [state, can, chat]);
}

function actions(chat: Chat | null): Omit<AgentChat, keyof ChatState | "chat"> {
  const ready = () => {
    if (!chat) throw new Error("The component is not mounted yet.");
    return chat;
  };
  return {
    send: (...given) => ready().send(...given),
    interrupt: (...given) => ready().interrupt(...given),
    cancel: (...given) => ready().cancel(...given),
    retry: (...given) => ready().retry(...given),
    discard: (...given) => ready().discard(...given),
    loadOlder: (...given) => ready().loadOlder(...given),
    reconnect: (...given) => ready().reconnect(...given),
  };
}
