// Responses, and what each failure looks like from outside.

import type { Response } from "alga:extension/handler@0.1.0";
import { log } from "alga:extension/logging@0.1.0";
import type { Error as StorageError } from "alga:storage/types@0.1.0";

import { Refusal } from "./refusal.js";
import { failedItem, storageError, stored } from "./store.js";

/** A response with a JSON body. */
export function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return {
    status,
    headers: Object.entries({ "content-type": "application/json", ...headers }).map(([name, value]) => ({ name, value })),
    body: new TextEncoder().encode(JSON.stringify(body, plain)),
  };
}

/** The revision of a record as `ETag`, for a later `if-match`. */
export function etag(revision: bigint): Record<string, string> {
  return { etag: `"${revision}"` };
}

/** The answer to a request that failed, whatever was thrown. */
export function failed(thrown: unknown): Response {
  if (thrown instanceof Refusal) {
    return failure(thrown.status, thrown.code, thrown.message, thrown.details, thrown.headers);
  }
  const error = storageError(thrown);
  if (error) return storageFailure(error, failedItem(thrown));
  // A defect of this extension. The caller learns no more than that; its author reads the log.
  log("error", thrown instanceof Error ? `${thrown}\n${thrown.stack ?? ""}` : String(thrown));
  return failure(500, "DEFECT", "the extension failed");
}

/** One case for each error: when storage learns to fail in a new way, this stops compiling. */
function storageFailure(error: StorageError, item: ReturnType<typeof failedItem>): Response {
  const details = item ? { item } : {};
  switch (error.tag) {
    case "validation-failed":
      return failure(400, "VALIDATION_FAILED", "storage refused a value", { ...details, violations: error.val });
    case "limit-exceeded":
      return failure(400, "LIMIT_EXCEEDED", "this request asks for more than storage allows", { ...details, ...error.val });
    case "unauthorized":
    case "capability-denied":
      return failure(403, "CAPABILITY_DENIED", "this install may not do that with storage");
    case "namespace-denied":
      return failure(403, "NAMESPACE_DENIED", `this install may not use the namespace ${error.val}`);
    case "not-found":
      return failure(404, "NOT_FOUND", "there is no such record");
    case "revision-mismatch": {
      const { currentRevision = null, current } = error.val;
      const found = current ? stored(current) : null;
      return failure(409, "REVISION_MISMATCH", "the record isn't what this request expects", {
        ...details,
        currentRevision,
        current: found && found.value,
      });
    }
    case "quota-exceeded":
      return failure(429, "QUOTA_EXCEEDED", "there is no room left, remove something first", { ...details, ...error.val });
    case "rate-limited": {
      // The header counts whole seconds; rounding down would invite a request too early.
      const seconds = (error.val + 999n) / 1000n;
      return failure(429, "RATE_LIMITED", "too many requests, try again later", {}, { "retry-after": `${seconds}` });
    }
    case "unavailable":
      return failure(503, "UNAVAILABLE", "storage didn't answer; read before trying again, a change may have been made");
    case "internal":
      return failure(500, "INTERNAL", "storage failed", { requestId: error.val });
    default:
      return error satisfies never;
  }
}

function failure(
  status: number,
  code: string,
  message: string,
  details: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Response {
  return json(status, { error: { code, message, ...details } }, headers);
}

/** JSON knows no 64-bit numbers. Revisions and sizes are far below 2^53, where these are exact. */
function plain(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? Number(value) : value;
}
