"""A retry that cannot be enqueued becomes a dead letter, and an error that asks for no retry gets none."""

from typing import Any

from dramatiq import middleware
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import BrokerConnectionError


class Retries(middleware.Retries):
    """Dramatiq's Retries swallows the failure to enqueue a retry and then acknowledges the message: it is lost.

    Here such a message fails, and so is rejected as soon as the broker is back. An exception of the classes `dropped`
    says that the message has nothing to do any more, or not now: it is acknowledged, because the row that it spoke of
    will be woken again.
    """

    def __init__(self, *, dropped: tuple[type[Exception], ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self.dropped = dropped

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Retry, reject or drop a message that failed."""
        if isinstance(exception, self.dropped):
            return
        try:
            super().after_process_message(  # type: ignore[no-untyped-call]
                broker, message, result=result, exception=exception
            )
        except BrokerConnectionError as error:
            message.options["retry_not_enqueued"] = str(error)
            message.fail()
