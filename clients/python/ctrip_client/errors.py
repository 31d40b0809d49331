"""What can go wrong. Every error is a CtripError."""


class CtripError(Exception):
    """Any failure of this library or of the server that it asks."""


class ApiError(CtripError):
    """The server refused a request (RFC 9457).

    `code` is stable and meant for programs; `param` names the value at fault; the operator finds the request in his
    logs by `request_id`.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, param: str | None = None, request_id: str | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.param = param
        self.request_id = request_id
        at = "" if param is None else f" ({param})"
        known = "" if request_id is None else f" [{request_id}]"
        super().__init__(f"{status} {code}{at}: {detail}{known}")


class NoAnswer(CtripError):
    """No attempt was answered, or none with more than a fault of the server: nobody knows whether it was carried out.

    A payment that is asked for again with the same `idempotency_key` is made once.
    """

    def __init__(self, detail: str, *, idempotency_key: str | None = None) -> None:
        self.idempotency_key = idempotency_key
        super().__init__(detail)


class TakesTooLong(CtripError):
    """A payment is not yet what it was waited for; it may become so later."""


class PaymentEnded(CtripError):
    """A payment expired or was canceled while it was waited for. It may still be accepted, or a reorg open it again."""


class InvalidSignature(CtripError):
    """A webhook was not signed with any of your secrets, or more than five minutes ago: do not believe it."""


class NotThisOrder(CtripError):
    """A payment is of another order, amount or currency than you expect: do not ship."""
