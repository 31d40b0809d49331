"""Each worker process says that it lives and how much it has done."""

import threading

import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from actors.queues import Queues

EVERY_S = 3.0
_SIGN_OUT_WITHIN_S = 3.0


class Presence(Middleware):
    """Dramatiq's heartbeats cannot tell workers from producers, nor one queue's from another's, and nothing counts.

    The count of completed messages is added up in memory and sent with the sign of life, so it costs a message nothing;
    a worker that is killed takes the last few seconds of it along.
    """

    def __init__(self) -> None:
        self._completed = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._has_signed_in = False

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Count a message that is done. One that was only promoted from the delay queue is not."""
        if not message.queue_name.endswith(".DQ"):
            with self._lock:
                self._completed += 1

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Sign in, and go on doing so."""
        self._thread = threading.Thread(target=self._run, args=(broker, _served(worker)), name="presence", daemon=True)
        self._thread.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Sign out: a stopped worker should not count as alive until its last sign of life is old."""
        self._stopping.set()
        self._thread.join(_SIGN_OUT_WITHIN_S)

    def _run(self, broker: Broker, served: list[str]) -> None:
        queues, is_last = _queues(broker), False
        while not is_last:
            is_last = self._stopping.wait(EVERY_S if self._has_signed_in else 0)
            with self._lock:
                completed, self._completed = self._completed, 0
            try:
                for queue in served:
                    queues.sign_in(queue, _id(broker), completed=completed)
                    completed = 0
                    if is_last:
                        queues.sign_out(queue, _id(broker))
            except redis.RedisError:
                # Consumers say in the log that Redis is away; what was counted is sent when it is back.
                with self._lock:
                    self._completed += completed
            self._has_signed_in = True


def _served(worker: Worker) -> list[str]:
    return [queue for queue in worker.consumers if not queue.endswith(".DQ")]


def _queues(broker: Broker) -> Queues:
    return Queues(
        broker.client,  # type: ignore[attr-defined]
        namespace=broker.namespace,  # type: ignore[attr-defined]
        heartbeat_timeout_ms=broker.heartbeat_timeout,  # type: ignore[attr-defined]
    )


def _id(broker: Broker) -> str:
    return str(broker.broker_id)  # type: ignore[attr-defined]
