// What the page asks its server.

let action = "";

/** An answer that is an error: `away` where the coordinator does not answer, `gone` where the server of the page does not. */
class Failure extends Error {
  constructor(message, { status = 0, away = false, gone = false } = {}) {
    super(message);
    this.status = status;
    this.away = away;
    this.gone = gone;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Failure("the server of this page does not answer; start it again with: covey ui", { gone: true });
  }
  const isJson = (response.headers.get("content-type") ?? "").startsWith("application/json");
  const body = isJson ? await response.json() : { error: (await response.text()).trim() };
  if (response.ok) return body;
  throw new Failure(body.error || `the server answers with ${response.status}`, {
    status: response.status,
    away: body.away === true,
  });
}

/** Read: `get("/api/runs", {limit: 50, metric: ["a", "b"]})`. */
export function get(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const item of [value].flat()) if (item !== undefined && item !== "") search.append(name, item);
  }
  const text = search.toString();
  return ask(text ? `${path}?${text}` : path);
}

/** Have something done. */
export function post(path, body = "") {
  return ask(path, { method: "POST", body, headers: { "x-covey-action": action, "content-type": "text/plain" } });
}

/** Whether the coordinator answers; it also brings what changes are sent with. */
export async function status() {
  const answer = await get("/api/status");
  action = answer.action;
  return answer;
}

export const ofRun = (run, ...more) => ["/api/runs", ...[run, ...more].map((part) => encodeURIComponent(part))].join("/");
