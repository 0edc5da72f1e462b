// Takes the links in Supabase's e-mails: tokens in the fragment, `token_hash`, or `code`. Secrets stay in memory and leave
// the address bar before anything else happens. No text of the address is ever shown: anybody can write a link to here.
const link = new URLSearchParams([
  ...new URLSearchParams(location.search),
  ...new URLSearchParams(location.hash.slice(1)),
]);
history.replaceState(null, "", location.pathname);

const API = "/api/v1/auth";
const FORMS = ["confirm", "password", "request"];
const SETS_PASSWORD = ["recovery", "invite"];
const TYPES = ["signup", "recovery", "email", "email_change", "magiclink", "invite"];
const DONE = {
  email_change: "Your new e-mail address is confirmed. Use it from now on to sign in.",
  magiclink: "Your e-mail address is confirmed. This page cannot sign you in: go back to the app and sign in there.",
};

const element = (id) => document.getElementById(id);

/** Show a state of the page: a title, a sentence and at most one form. */
function show(title, text, form = null) {
  element("title").textContent = title;
  element("text").textContent = text;
  element("problem").hidden = true;
  for (const id of FORMS) element(id).hidden = id !== form;
  const field = form && element(form).querySelector("input, button");
  (field ?? element("title")).focus();
}

function complain(sentence) {
  element("problem").textContent = sentence;
  element("problem").hidden = false;
}

/** `{ok, code, detail, session}` of a request; `detail` is a sentence for the user. */
async function ask(path, body, token = null) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  try {
    const response = await fetch(`${API}/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    const answer = response.status === 204 ? {} : await response.json();
    return { ...answer, ok: response.ok, status: response.status };
  } catch {
    return { ok: false, code: "offline", detail: "The server cannot be reached. Check your connection and try again." };
  }
}

/** Disable a form while its request runs. */
function onSubmit(id, act) {
  element(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = element(id).querySelector("button");
    button.disabled = true;
    element("problem").hidden = true;
    try {
      await act(new FormData(element(id)));
    } finally {
      button.disabled = false;
    }
  });
}

/** Refusals that only another link helps against; the last one if the page was left open for over ten minutes. */
const USED_UP = ["otp_expired", "unauthorized", "token_expired", "reauthentication_required"];
const isUsedUp = ({ code }) => USED_UP.includes(code);

const showUsedUp = () =>
  show(
    "This link no longer works",
    "It was used before, or it is too old. Some mail programs open links by themselves. " +
      "Ask for a new link and open it soon, or sign in if you have set a password already.",
    "request",
  );

/** End the sign-in that a link has opened: this page does not need it, and it must not be found later. */
const leave = (token) => ask("logout", { scope: "local" }, token);

const showDone = (type) =>
  show("Done", DONE[type] ?? "Your e-mail address is confirmed. Go back to the app and sign in.");

const showOtherMail = () =>
  show("One more step", "This address is confirmed. Now open the link in the mail to your other address, too.");

let token = null;

async function setPassword(fields) {
  const password = fields.get("password");
  const answer = token
    ? await ask("password", { password }, token)
    : await ask("reset", { token_hash: link.get("token_hash"), password });
  token = answer.session?.access_token ?? answer.access_token ?? token; // the link is used up, its sign-in is not
  if (answer.ok) {
    await leave(token);
    token = null;
    show("Your password is set", "You are signed out everywhere else. Go back to the app and sign in with it.");
  } else if (isUsedUp(answer)) showUsedUp();
  else complain(answer.detail);
}

async function confirmAddress() {
  const type = link.get("type");
  const answer = await ask("verify", { token_hash: link.get("token_hash"), type });
  if (answer.status === 202) showOtherMail();
  else if (answer.ok) {
    await leave(answer.access_token);
    showDone(type);
  } else if (isUsedUp(answer)) showUsedUp();
  else complain(answer.detail);
}

async function requestLink(fields) {
  const answer = await ask(fields.get("purpose"), { email: fields.get("email") });
  if (answer.ok) show("Look into your mail", "If a link is due for this address, it is on its way. Open the newest one.");
  else if (answer.code === "captcha_failed") complain("Ask for the link in the app.");
  else complain(answer.detail);
}

const choosePassword = () => show("Set a new password", "Choose a password for your account.", "password");

async function begin() {
  const type = link.get("type");
  if (link.has("error") || link.has("error_code")) showUsedUp();
  else if (link.has("token_hash") && TYPES.includes(type)) {
    // Nothing is used up before the user acts: mail programs open links, too.
    if (type === "recovery") choosePassword();
    else show("Confirm your e-mail address", "Continue to confirm that this address is yours.", "confirm");
  } else if (link.has("access_token")) {
    token = link.get("access_token");
    if (SETS_PASSWORD.includes(type)) choosePassword();
    else {
      const answer = await leave(token);
      if (isUsedUp(answer)) showUsedUp();
      else showDone(type);
    }
  } else if (link.has("message")) showOtherMail();
  else if (link.has("code"))
    show(
      "Go back to the app",
      "Your e-mail address is confirmed. What this link began can be completed only in the app and the browser in " +
        "which you asked for it. To set a new password here, ask for another link.",
      "request",
    );
  else show("Your account", "There is no link here. You can ask for one.", "request");
}

addEventListener("DOMContentLoaded", () => {
  onSubmit("confirm", confirmAddress);
  onSubmit("password", setPassword);
  onSubmit("request", requestLink);
  element("shown").addEventListener("change", ({ target }) => {
    element("new-password").type = target.checked ? "text" : "password";
  });
  begin();
});
