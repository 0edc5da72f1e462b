// The chat is `useAgentChat` of the client; `useChat` of the AI SDK gets its messages through AgentTransport.
import { type AgentMessage, AgentTransport } from "@ai-chat-platform/client/ai";
import { useAgentChat } from "@ai-chat-platform/client/react";
import { useChat } from "@ai-sdk/react";
import { type FormEvent, type KeyboardEvent, useEffect, useState } from "react";
import { getToken, supabase } from "./account";
import { Message } from "./Message";

const url = import.meta.env.VITE_CHAT_URL;

export function Chat({ email }: { email: string }) {
  const agent = useAgentChat({ url, getToken });
  const [begun, setBegun] = useState<{ transport: AgentTransport; messages: AgentMessage[] } | null>(null);
  useEffect(() => {
    if (!agent.chat) return;
    const transport = new AgentTransport(agent.chat);
    let isCurrent = true;
    void transport.firstMessages().then((messages) => isCurrent && setBegun({ transport, messages }));
    return () => {
      isCurrent = false;
      setBegun(null);
    };
  }, [agent.chat]);

  return (
    <main>
      <header>
        <strong>Agent</strong>
        <span>{email}</span>
        <button className="link" onClick={() => void supabase.auth.signOut()}>
          Sign out
        </button>
      </header>
      {agent.connection !== "online" && <p role="status">{agent.error?.message ?? "Connecting…"}</p>}
      {agent.agent.status === "provisioning" && <p role="status">Your agent is being made. You may write already.</p>}
      {begun && (
        <Conversation {...begun} loadOlder={agent.history.hasMore ? () => void agent.loadOlder() : undefined} />
      )}
    </main>
  );
}

interface ConversationProps {
  transport: AgentTransport;
  messages: AgentMessage[];
  /** undefined: there are no older messages. */
  loadOlder: (() => void) | undefined;
}

function Conversation({ transport, messages: first, loadOlder }: ConversationProps) {
  const { messages, sendMessage, setMessages, regenerate, stop, status, error } = useChat<AgentMessage>({
    transport,
    messages: first,
    resume: true,
  });
  useEffect(() => transport.follow(setMessages), [transport, setMessages]); // older messages, and turns of other devices
  const [text, setText] = useState("");
  const isBusy = status === "submitted" || status === "streaming";

  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (isBusy || !text.trim()) return;
    void sendMessage({ text });
    setText("");
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) submit(event);
  };

  return (
    <>
      <div className="scroll">
        <section aria-live="polite">
          {loadOlder && (
            <button className="link" onClick={loadOlder}>
              Older messages
            </button>
          )}
          {!messages.length && <p className="empty">Say hello: your agent remembers what you tell it.</p>}
          {messages.map((message) => (
            <Message key={message.id} message={message} />
          ))}
          {status === "submitted" && <p className="empty">…</p>}
          {error && (
            <p role="alert">
              {error.message} <button onClick={() => void regenerate()}>Try again</button>
            </p>
          )}
        </section>
      </div>
      <form className="composer" onSubmit={submit}>
        <textarea
          rows={1}
          placeholder="Message"
          aria-label="Message"
          autoFocus
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKeyDown}
        />
        {isBusy ? (
          <button type="button" onClick={() => void stop()}>
            Stop
          </button>
        ) : (
          <button disabled={!text.trim()}>Send</button>
        )}
      </form>
    </>
  );
}
