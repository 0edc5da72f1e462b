// What a screen reader is told: a reply once it is complete, not each of its words.
import type { ChatMessage } from "@ai-chat-platform/client";
import { useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../platform/problem_words";
import { words } from "./words";

const LONGEST = 600; // characters; the rest can be read in its place

export function Announcer({ messages }: { messages: readonly ChatMessage[] }) {
  const running = useRef<string | null>(null);
  const [text, setText] = useState("");
  useEffect(() => {
    const streaming = messages.findLast(({ status }) => status === "streaming")?.id ?? null;
    const ended = running.current !== streaming && messages.find(({ id }) => id === running.current);
    running.current = streaming;
    if (ended) setText(newsOf(ended));
  }, [messages]);
  return <div class="only-read" role="status" aria-live="polite">{text}</div>;
}

function newsOf({ status, text, note, error }: ChatMessage): string {
  const t = words();
  if (status === "failed") return t.replyFailed(error ? sentence(error) : "");
  if (status === "partial") return t.replyStopped;
  const all = text || note || "";
  return t.said(all.length > LONGEST ? `${all.slice(0, LONGEST)}…` : all);
}
