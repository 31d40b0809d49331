"""The error tree: what can go wrong, in the product's words, each with a stable code.

    CtripError
    ├── InvalidValue            a value that a caller sent (422)
    │   └── InvalidAmount · IdempotencyMismatch
    ├── MalformedRequest        not readable at all (400)
    ├── Unauthorized · Forbidden (AddressRefused) · NotFound · Conflict · IdempotencyInFlight
    ├── RateLimited · TooManyOpen   more requests than a quota allows, more open payments than a merchant may have (429)
    ├── ChainNotReady           the chain was never read yet (503)
    ├── RateUnavailableError    too few sources agree on what a coin is worth just now (503)
    ├── RateRefused             a source of rates told nothing that can be used
    ├── Unavailable             Postgres is away (503)
    ├── MisconfiguredError      refuses to start; names the key, what is wrong, what would be right
    ├── ChainError              what the node answered, or did not
    │   ├── NodeUnavailable · NodeRefused · BlockVanished
    │   └── ReorgTooDeep        the chain stops until an operator looks
    ├── LostFence               another run owns the loop: roll back, write nothing
    ├── IndexTaken              a derivation index was given out twice: take others
    ├── IllegalTransition       a status was about to move along no arrow of TRANSITIONS
    ├── DestinationRefused      a webhook URL that must not be dialled
    ├── DeliveryFailed          an attempt that reached no 2xx
    └── SigningRefused          the signer will not sign this

`code` and `status` are what HTTP clients see; `param` names the field at fault. Messages never carry a secret.
"""


class CtripError(Exception):
    """Base of everything that cTrip raises on purpose."""

    code = "internal_error"
    status = 500

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param


class InvalidValue(CtripError):
    """A value is of the wrong form or outside its range."""

    code = "invalid_value"
    status = 422


class InvalidAmount(InvalidValue):
    """An amount that is no plain decimal string, or that the asset cannot express."""

    code = "invalid_amount"


class IdempotencyMismatch(InvalidValue):
    """An idempotency key that was used with another body before."""

    code = "idempotency_key_reused"


class MalformedRequest(CtripError):
    """The body could not be read as what it claims to be."""

    code = "malformed_request"
    status = 400


class Unauthorized(CtripError):
    """No key, or one that is unknown, revoked or expired."""

    code = "unauthorized"
    status = 401


class Forbidden(CtripError):
    """The key is good but lacks the scope."""

    code = "insufficient_scope"
    status = 403


class AddressRefused(Forbidden):
    """The key may not be used from the address that the request came from."""

    code = "address_not_allowed"


class NotFound(CtripError):
    """No such object, or one of another merchant."""

    code = "not_found"
    status = 404


class Conflict(CtripError):
    """The object's state does not allow this."""

    code = "conflict"
    status = 409


class IdempotencyInFlight(Conflict):
    """The first request with this key has not finished."""

    code = "idempotency_in_flight"


class RateLimited(CtripError):
    """More requests than the key or the address may send; nothing was done."""

    code = "rate_limited"
    status = 429


class TooManyOpen(CtripError):
    """The merchant has as many payments open as one may have: each is watched until it is paid, canceled or expired."""

    code = "too_many_open_payments"
    status = 429


class ChainNotReady(CtripError):
    """The chain has no start block yet: nothing could be promised about an address on it."""

    code = "chain_not_ready"
    status = 503


class RateUnavailableError(CtripError):
    """Too few sources agree on what the asset is worth just now: no price in this currency can be asked in it."""

    code = "rate_unavailable"
    status = 503


class RateRefused(CtripError):
    """What a source of rates told cannot be used, or it told nothing.

    `reason` is one of `ctrip.domain.rates.Refusal`; `retry_after_s` is what the source asked for, where it did.
    """

    code = "rate_refused"

    def __init__(self, detail: str, *, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Unavailable(CtripError):
    """Postgres cannot be reached: nothing is known to be stored. Try again, with the same Idempotency-Key."""

    code = "unavailable"
    status = 503


class MisconfiguredError(CtripError):
    """The process refuses to start. The message names every fault found."""

    code = "misconfigured"


class ChainError(CtripError):
    """Base of what goes wrong between cTrip and a node."""

    code = "chain_error"


class NodeUnavailable(ChainError):
    """No answer, a broken one, or an HTTP error: nothing is known about the request's effect."""

    code = "node_unavailable"


class NodeRefused(ChainError):
    """A JSON-RPC error answer. `rpc_code` and `rpc_message` are the node's own."""

    code = "node_refused"

    def __init__(self, detail: str, *, rpc_code: int, rpc_message: str) -> None:
        super().__init__(detail)
        self.rpc_code = rpc_code
        self.rpc_message = rpc_message


class BlockVanished(ChainError):
    """A block that was there a moment ago is not: the chain is moving, read again."""

    code = "block_vanished"


class ReorgTooDeep(ChainError):
    """More blocks are not canonical any more than a reorg may take. The chain is stopped; statuses stay as they are."""

    code = "reorg_too_deep"


class LostFence(CtripError):
    """Another run has claimed the loop since: this one must not write."""

    code = "lost_fence"


class IndexTaken(CtripError):
    """Another payment has the address of this derivation index; nothing was stored."""

    code = "index_taken"


class IllegalTransition(CtripError):
    """A status was about to move along no arrow, or from a status that it no longer has."""

    code = "illegal_transition"


class DestinationRefused(CtripError):
    """A webhook destination that must not be dialled: scheme, credentials, or an address that is not public."""

    code = "destination_refused"
    status = 422


class DeliveryFailed(CtripError):
    """An attempt ended without a 2xx. `status_code` is None where no status line came."""

    code = "delivery_failed"

    def __init__(self, detail: str, *, status_code: int | None = None, response: str | None = None) -> None:
        super().__init__(detail)
        self.status_code = status_code
        self.response = response


class SigningRefused(CtripError):
    """The signer's own policy forbids this transaction."""

    code = "signing_refused"
