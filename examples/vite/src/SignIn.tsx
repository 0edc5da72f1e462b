import { type FormEvent, useState } from "react";
import { supabase } from "./account";

export function SignIn() {
  const [isNew, setIsNew] = useState(false);
  const [isBusy, setIsBusy] = useState(false);
  const [note, setNote] = useState("");

  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const [name, email, password] = ["name", "email", "password"].map((field) => String(form.get(field) ?? ""));
    setIsBusy(true);
    const { data, error } = isNew
      ? await supabase.auth.signUp({ email, password, options: { data: { name } } })
      : await supabase.auth.signInWithPassword({ email, password });
    setIsBusy(false);
    setNote(error ? error.message : data.session ? "" : "We have sent you a link: open it to confirm your address.");
  };

  return (
    <form className="sign-in" onSubmit={submit}>
      <h1>{isNew ? "Create an account" : "Sign in"}</h1>
      {isNew && <input name="name" placeholder="Name" autoComplete="name" required />}
      <input name="email" type="email" placeholder="E-mail" autoComplete="email" required />
      <input
        name="password"
        type="password"
        placeholder="Password"
        autoComplete={isNew ? "new-password" : "current-password"}
        required
      />
      <button disabled={isBusy}>{isNew ? "Sign up" : "Sign in"}</button>
      <p role="alert">{note}</p>
      <button type="button" className="link" onClick={() => setIsNew(!isNew)}>
        {isNew ? "I have an account" : "Create an account"}
      </button>
    </form>
  );
}
