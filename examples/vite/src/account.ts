// Accounts are Supabase's own: any way to sign in that supabase-js has works.
import type { GetToken } from "@ai-chat-platform/client";
import { createClient } from "@supabase/supabase-js";

export const supabase = createClient(import.meta.env.VITE_SUPABASE_URL, import.meta.env.VITE_SUPABASE_ANON_KEY);

export const getToken: GetToken = async ({ expired }) => {
  const { data, error } = expired ? await supabase.auth.refreshSession() : await supabase.auth.getSession();
  if (error?.name === "AuthRetryableFetchError") throw error; // Supabase cannot be reached: the chat asks again
  return data.session?.access_token ?? null;
};
