// Takes the links in Supabase's e-mails: tokens in the fragment, `token_hash`, or `code`. Secrets leave the address bar
// before anything else happens. No text of the address is ever shown: anybody can write a link to here.
//
// Anybody can also send a link that opens an account of their own, so that what its reader writes there is theirs to read.
// So a link signs in only where the console of this very browser asked for that mail, for that address; elsewhere its
// sign-in is ended. The words are in callback_words.js.
const link = new URLSearchParams([
  ...new URLSearchParams(location.search),
  ...new URLSearchParams(location.hash.slice(1)),
]);
history.replaceState(null, "", location.pathname);

const API = "/api/v1/auth";
const FORMS = ["confirm", "password", "request"];
const SETS_PASSWORD = ["recovery", "invite"];
const TYPES = ["signup", "recovery", "email", "email_change", "magiclink", "invite"];
const PURPOSES = { signup: "signup", email: "signup", recovery: "recovery" };
const AWAITED_FOR = 24 * 3600_000; // milliseconds

const element = (id) => document.getElementById(id);
const hasConsole = document.documentElement.dataset.console === "on";

/** What the console has stored under this name; null without it, or where storage is forbidden. */
function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Whether it could be stored. */
function store(storage, name, value) {
  try {
    storage.setItem(name, value);
    return true;
  } catch {
    return false;
  }
}

function language() {
  const chosen = stored("console.language");
  const known = [chosen, ...navigator.languages].map((tag) => tag?.slice(0, 2));
  return known.find((tag) => tag === "en" || tag === "ru") ?? "en";
}
let words = null;

/** Show a state of the page: a title, a sentence and at most one form. */
function show(title, text, form = null) {
  element("title").textContent = title;
  element("text").textContent = text;
  element("problem").hidden = true;
  element("console").hidden = true;
  for (const id of FORMS) element(id).hidden = id !== form;
  const field = form && element(form).querySelector("input, button");
  (field ?? element("title")).focus();
}

function complain({ code, detail }) {
  element("problem").textContent = words.problems[code] ?? detail;
  element("problem").hidden = false;
}

/** `{ok, code, detail, session}` of a request; `detail` is a sentence for the user. */
async function ask(path, body, token = null) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const method = body ? "POST" : "GET";
  try {
    const response = await fetch(`${API}/${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    const answer = response.status === 204 ? {} : await response.json();
    return { ...answer, ok: response.ok, status: response.status };
  } catch {
    return { ok: false, code: "offline" };
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

const showUsedUp = () => show(words.usedUp, words.usedUpText, "request");

/** End the sign-in that a link has opened: this page does not need it, and it must not be found later. */
const leave = (token) => ask("logout", { scope: "local" }, token);

/** Whether the console of this browser waits for this mail, and has no user who is signed in. */
function isAwaited({ email }, type) {
  try {
    const awaited = JSON.parse(stored("console.awaited"));
    const isHere = awaited?.email.toLowerCase() === email.toLowerCase() && awaited.purpose === PURPOSES[type];
    return hasConsole && isHere && Date.now() - awaited.at < AWAITED_FOR && stored("chat.session") === null;
  } catch {
    return false;
  }
}

/** Hand the sign-in over to the console, as clients/js/src/auth.ts stores it. False: the storage is full. */
function enter(session) {
  const { access_token, refresh_token, token_type, expires_in, user } = session;
  const expires_at = new Date(Date.now() + expires_in * 1000).toISOString();
  const kept = JSON.stringify({ access_token, refresh_token, token_type, expires_in, expires_at, user });
  if (!store(localStorage, "chat.session", kept)) return false;
  localStorage.removeItem("console.awaited");
  location.replace("/");
  return true;
}

/** The link has done its work: sign in where that is safe, else end its sign-in and say what to do. */
async function finish(session, title, text) {
  if (session.user && session.refresh_token && isAwaited(session.user, link.get("type"))) {
    show(words.done, words.entering);
    if (enter(session)) return session;
  }
  const answer = await leave(session.access_token);
  show(title, text);
  if (hasConsole) {
    element("console").hidden = false;
    if (session.user) store(sessionStorage, "console.email", session.user.email);
  }
  return answer;
}

const doneText = (type) =>
  ({ email_change: words.newAddress, magiclink: words.magicLink })[type] ?? `${words.confirmed} ${words.signIn}`;

const showOtherMail = () => show(words.oneMore, words.oneMoreText);

/** The sign-in that the link has opened, as far as it is known: `{access_token, refresh_token, expires_in, user}`. */
let session = null;

async function setPassword(fields) {
  const password = fields.get("password");
  const answer = session
    ? await ask("password", { password }, session.access_token)
    : await ask("reset", { token_hash: link.get("token_hash"), password });
  session = answer.session ?? (answer.access_token ? answer : session); // the link is used up, its sign-in is not
  if (answer.ok) {
    await finish(session, words.passwordSet, words.passwordSetText);
    session = null;
  } else if (isUsedUp(answer)) showUsedUp();
  else complain(answer);
}

async function confirmAddress() {
  const type = link.get("type");
  const answer = await ask("verify", { token_hash: link.get("token_hash"), type });
  if (answer.status === 202) showOtherMail();
  else if (answer.ok) await finish(answer, words.done, doneText(type));
  else if (isUsedUp(answer)) showUsedUp();
  else complain(answer);
}

async function requestLink(fields) {
  const answer = await ask(fields.get("purpose"), { email: fields.get("email") });
  if (answer.ok) show(words.mail, words.mailText);
  else complain(answer);
}

const choosePassword = () => show(words.choose, words.chooseText, "password");

/** The sign-in in the link's fragment. */
async function linkedSession() {
  const [access_token, refresh_token] = [link.get("access_token"), link.get("refresh_token")];
  const user = await ask("me", null, access_token);
  const expires_in = Number(link.get("expires_in")) || 3600;
  return { access_token, refresh_token, token_type: "bearer", expires_in, user: user.ok ? user : null, refusal: user };
}

async function begin() {
  const type = link.get("type");
  if (link.has("error") || link.has("error_code")) showUsedUp();
  else if (link.has("token_hash") && TYPES.includes(type)) {
    // Nothing is used up before the user acts: mail programs open links, too.
    if (type === "recovery") choosePassword();
    else show(words.confirm, words.confirmText, "confirm");
  } else if (link.has("access_token")) {
    session = await linkedSession();
    if (SETS_PASSWORD.includes(type)) choosePassword();
    else if (isUsedUp(session.refusal)) showUsedUp();
    else await finish(session, words.done, doneText(type));
  } else if (link.has("message")) showOtherMail();
  else if (link.has("code")) show(words.back, words.backText, "request");
  else show(words.account, words.noLink, "request");
}

addEventListener("DOMContentLoaded", () => {
  document.documentElement.lang = language();
  document.documentElement.dataset.theme = stored("console.theme") ?? "auto";
  words = WORDS[language()];
  for (const shown of document.querySelectorAll("[data-words]")) shown.textContent = words[shown.dataset.words];
  onSubmit("confirm", confirmAddress);
  onSubmit("password", setPassword);
  onSubmit("request", requestLink);
  element("shown").addEventListener("change", ({ target }) => {
    element("new-password").type = target.checked ? "text" : "password";
  });
  begin();
});
