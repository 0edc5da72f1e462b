import assert from "node:assert/strict";
import { test } from "node:test";
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { useAgentChat } from "../src/react.js";

test("on a server the hook renders the first state, and connects to nothing", (context) => {
  const getToken = context.mock.fn(() => "token");
  const Page = () => {
    const { connection, messages, history, chat } = useAgentChat({ url: "https://test", getToken });
    return createElement("p", null, JSON.stringify([connection, messages, history.isLoading, chat]));
  };
  assert.match(renderToString(createElement(Page)), /\[&quot;connecting&quot;,\[\],true,null\]/);
  assert.equal(getToken.mock.callCount(), 0);
});
