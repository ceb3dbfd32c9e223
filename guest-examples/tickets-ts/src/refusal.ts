// What this extension itself refuses. What storage refuses is in `store.ts`.

/** A request that is answered with an error. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: Record<string, unknown> = {},
    readonly headers: Record<string, string> = {},
  ) {
    super(message);
  }
}

/** The request itself is wrong; the message says what to do about it. */
export class BadRequest extends Refusal {
  constructor(message: string) {
    super(400, "BAD_REQUEST", message);
  }
}
