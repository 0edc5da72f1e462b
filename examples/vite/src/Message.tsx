import type { AgentMessage } from "@ai-chat-platform/client/ai";

type Part = AgentMessage["parts"][number];

export function Message({ message: { role, parts, metadata } }: { message: AgentMessage }) {
  const shown = metadata?.text === undefined ? parts : parts.filter(({ type }) => type !== "text");
  return (
    <article className={role}>
      {shown.map((part, index) => (
        <PartOfMessage key={index} part={part} />
      ))}
      {metadata?.text && <p>{metadata.text}</p>}
      {metadata?.note && <p className="empty">{metadata.note}</p>}
      {metadata?.cost && (
        <small>
          {metadata.usage?.total_tokens.toLocaleString("en")} tokens · ${metadata.cost}
        </small>
      )}
    </article>
  );
}

function PartOfMessage({ part }: { part: Part }) {
  switch (part.type) {
    case "text":
      return <p>{part.text}</p>;
    case "reasoning":
      return (
        <details>
          <summary>Thoughts</summary>
          <p>{part.text}</p>
        </details>
      );
    case "dynamic-tool":
      return (
        <details className="tool" data-state={part.state}>
          <summary>{part.toolName}</summary>
          <pre>{typeof part.input === "string" ? part.input : JSON.stringify(part.input, null, 2)}</pre>
        </details>
      );
    default:
      return null;
  }
}
