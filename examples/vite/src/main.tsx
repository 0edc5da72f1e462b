import type { Session } from "@supabase/supabase-js";
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { supabase } from "./account";
import { Chat } from "./Chat";
import { SignIn } from "./SignIn";
import "./style.css";

function App() {
  const [session, setSession] = useState<Session | null | undefined>(undefined); // undefined: not known yet
  useEffect(() => {
    const { data } = supabase.auth.onAuthStateChange((_, current) => setSession(current));
    return () => data.subscription.unsubscribe();
  }, []);
  if (session === undefined) return null;
  return session ? <Chat key={session.user.id} email={session.user.email ?? ""} /> : <SignIn />;
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
