"""A link that can be asked to hear more while it stands, and to stop hearing it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bounded_client import listen_to
from .inbound import Route, pattern_of
from .link import Link

if TYPE_CHECKING:
    from .inbound import Handler


class ListeningLink(Link):
    """A link with subscriptions that come and go beside those that last.

    A subscription that the broker did not hear of, because the connection broke at that moment, is
    made by `listen` once more: who waits for messages asks again. A broker sends what it retains
    each time.
    """

    def listen(self, topic_filter: str, handler: Handler) -> None:
        """Have `handler(topic, payload)` called for messages that match a filter, from now on.

        May be called from any thread, at any time, and again for the same filter; the last handler
        counts. Where no connection stands, the next one begins with it.
        """
        self._forget(topic_filter)
        self._filters.append(topic_filter)
        self._inbound.routes.append(Route(pattern_of(topic_filter), one=handler))
        # A session that the broker kept does not know of it: the next connection says it anew.
        self._subscribed_once = False
        client = self._client
        if client is not None and self.is_connected:
            listen_to(client, [topic_filter])

    def listen_no_more(self, topic_filter: str) -> None:
        """Hear nothing more under a filter that `listen` was called with.

        Where no connection stands the broker's session goes on with it; what comes has no taker
        and is gone.
        """
        self._forget(topic_filter)
        client = self._client
        if client is not None and self.is_connected:
            client.unsubscribe(topic_filter)

    def _subscribed(self, *said: Any) -> None:
        was_connected = self.is_connected
        if not was_connected:
            super()._subscribed(*said)
            return
        reasons = said[3]
        self.counters.refused += sum(reason.is_failure for reason in reasons)
        self._subscribed_once = True

    def _forget(self, topic_filter: str) -> None:
        pattern = pattern_of(topic_filter)
        self._filters = [name for name in self._filters if name != topic_filter]
        self._inbound.routes = [one for one in self._inbound.routes if one.pattern != pattern]
