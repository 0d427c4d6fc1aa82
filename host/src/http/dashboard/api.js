// Calls of the host's API, with the access token if there is one. There are no cookies: another site can't act in our name.

const KEY = "memcell-token";

/** How long an answer may take before it counts as none. */
const PATIENCE = 20_000;

/** The host doesn't answer at all. */
export class Unreachable extends Error {}

/** The host wants a token, or another one. */
export class Unauthorized extends Error {}

/** The host answered with a problem. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

export const token = () => sessionStorage.getItem(KEY);

export function setToken(value) {
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

/** What the host answers. Paths are relative to the page, which may be behind a proxy that adds a prefix. */
export async function call(method, path, body) {
  const headers = { accept: "application/json" };
  // Of other characters no header can be made, so the host can't be asked.
  if (token() !== null && !/^[\x21-\x7e]+$/.test(token())) {
    throw new Unauthorized("it has characters that no token has");
  }
  if (token() !== null) headers.authorization = `Bearer ${token()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
    answer = await response.text();
  } catch (error) {
    throw new Unreachable("the host does not answer", { cause: error });
  }
  const value = parsed(answer);
  if (response.ok && value !== undefined) return value;
  const detail = value?.detail ?? `the host answered with ${response.status}`;
  if (response.status === 401) throw new Unauthorized(detail);
  if (response.status === 403) throw new Refused(403, value?.code, withRole(method, detail));
  // Whoever answers like this is a proxy before a host that is away.
  if (value?.code === undefined && response.status >= 502) throw new Unreachable(detail);
  throw new Refused(response.status, value?.code, detail);
}

function parsed(answer) {
  try {
    return JSON.parse(answer);
  } catch {
    return undefined;
  }
}

/** Says which role is needed, where the host doesn't. */
function withRole(method, detail) {
  if (/\b(read|write|admin)\b/.test(detail)) return detail;
  return `${detail} (it takes a token with the role ${method === "GET" ? "read" : "admin"})`;
}
