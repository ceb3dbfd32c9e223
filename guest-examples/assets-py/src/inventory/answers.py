"""Responses, and what each failure looks like from outside."""

import json
import traceback
from collections.abc import Mapping
from typing import Any, assert_never

from componentize_py_types import Err
from wit_world.exports.handler import Header, Response
from wit_world.imports import logging
from wit_world.imports import types as wit

from .refusal import Refusal
from .store import value_of


def json_response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    named = {"content-type": "application/json", **(headers or {})}
    return Response(
        status,
        [Header(name, value) for name, value in named.items()],
        json.dumps(body, ensure_ascii=False).encode(),
    )


def no_content() -> Response:
    return Response(204, [], None)


def etag(revision: int) -> dict[str, str]:
    """The revision of a record as `ETag`."""
    return {"etag": f'"{revision}"'}


def failed(failure: Exception) -> Response:
    """The answer to a request that failed, whatever was raised."""
    if isinstance(failure, Refusal):
        return _error(failure.status, failure.code, str(failure), headers=failure.headers)
    if isinstance(failure, Err):
        error = failure.value
        return storage_failure(error.error if isinstance(error, wit.BulkError) else error)
    # A defect of this extension. The caller learns no more than that; its author reads the log.
    logging.log(logging.Level.ERROR, "".join(traceback.format_exception(failure)))
    return _error(500, "DEFECT", "the extension failed")


def storage_failure(error: wit.Error) -> Response:
    """One case for each error: mypy refuses one that storage may learn and this doesn't know."""
    match error:
        case wit.Error_ValidationFailed(violations):
            found = [
                {"instancePath": violation.instance_path, "message": violation.message}
                for violation in violations
            ]
            return _error(400, code_of(error), "storage refused a value", violations=found)
        case wit.Error_LimitExceeded(limit):
            message = "this request asks for more than storage allows"
            return _error(
                400,
                code_of(error),
                message,
                name=limit.name,
                limit=limit.limit,
                actual=limit.actual,
            )
        case wit.Error_Unauthorized() | wit.Error_CapabilityDenied() | wit.Error_NamespaceDenied():
            return _error(403, code_of(error), "this install may not do that with storage")
        case wit.Error_NotFound():
            return _error(404, code_of(error), "there is no such record")
        case wit.Error_RevisionMismatch(conflict):
            return _error(
                409,
                code_of(error),
                "the record isn't what this request expects",
                currentRevision=conflict.current_revision,
                current=conflict.current and value_of(conflict.current),
            )
        case wit.Error_QuotaExceeded(quota):
            message = "there is no room left, remove something first"
            return _error(429, code_of(error), message, quota=quota.name, limit=quota.limit)
        case wit.Error_RateLimited(retry_after_ms):
            # The header counts whole seconds; rounding down would invite a request too early.
            headers = {"retry-after": str(-(-retry_after_ms // 1000))}
            return _error(429, code_of(error), "too many requests", headers=headers)
        case wit.Error_Unavailable():
            message = "storage didn't answer; read before trying again, a change may have been made"
            return _error(503, code_of(error), message)
        case wit.Error_Internal(request_id):
            return _error(500, code_of(error), "storage failed", requestId=request_id)
        case _:
            assert_never(error)


def code_of(error: wit.Error) -> str:
    """What callers know an error by: `Error_NotFound` is `NOT_FOUND`."""
    name = type(error).__name__.removeprefix("Error_")
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name)[1:].upper()


def _error(
    status: int,
    code: str,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
    **details: Any,
) -> Response:
    return json_response(status, {"error": {"code": code, "message": message, **details}}, headers)
