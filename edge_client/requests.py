"""Requests of firmware in other languages: one JSON object in, one out, over an open device.

The protocol is docs/reference/requests.md. Nothing here reads or writes a file descriptor.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .errors import (
    ConsentMissingError,
    EdgeError,
    InputError,
    ReadingRefusedError,
    StoppedError,
    StoreBusyError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from .client import EdgeClient

    Fields = Mapping[str, Any]
    Answer = dict[str, object]

logger = logging.getLogger(__name__)

PROTOCOL = 1
MAX_REQUEST_BYTES = 65_536
MAX_ID_CHARACTERS = 64
MAX_READINGS = 500
COMMON_FIELDS = ("id", "do", "protocol", "now")
OUTSIDE_CONDITION = 6


class RequestError(EdgeError):
    """A request that cannot be understood; nothing was done.

    Attributes:
        code: as the answer carries it.
    """

    def __init__(self, code: str, what: str) -> None:
        """Name the code and what is wrong."""
        self.code = code
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of request.

    Attributes:
        fields: what may stand in it beside `COMMON_FIELDS`: name and type.
        what: what it does, in a few words.
        answer: does it, and returns the result.
    """

    fields: Mapping[str, type | tuple[type, ...]]
    what: str
    answer: Callable[[EdgeClient, Fields, datetime], Answer]


def answer_line(
    client: EdgeClient, line: bytes, *, now: Callable[[], datetime], counts: dict[str, int]
) -> bytes:
    """Answer one line with one line; whatever is wrong becomes an answer, never an exception.

    Args:
        client: the open device.
        line: a JSON object in UTF-8.
        now: the device's clock.
        counts: how often each error code was given; counted up here.

    Returns:
        A JSON object in UTF-8 and a line feed.
    """
    said: object = None
    try:
        body = _object_of(line)
        said = _id_of(body)
        answer = _line({"ok": True, "id": said, "result": _result(client, body, now)})
    except Exception as error:  # one request must not end the service
        failure = error_of(error)
        code = str(failure["code"])
        counts[code] = counts.get(code, 0) + 1
        if code == "internal":
            logger.exception("a request failed")
        answer = _line({"ok": False, "id": said, "error": failure})
    return answer


def overlong_answer(counts: dict[str, int]) -> bytes:
    """Return the answer to a line that was too long to be read."""
    counts["too_long"] = counts.get("too_long", 0) + 1
    what = f"a request has at most {MAX_REQUEST_BYTES} bytes"
    error = {"code": "too_long", "message": what, "exit_code": 3}
    return _line({"ok": False, "id": None, "error": error})


def _line(answer: Answer) -> bytes:
    """Return an answer as it is sent; `ok` stands first, for clients that only look there."""
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def error_of(error: Exception) -> dict[str, object]:
    """Return what an answer says of an error: code, message, and the exit code of the command."""
    from .cli import exit_code_of

    exit_code = exit_code_of(error)
    if exit_code is None:
        return {"code": "internal", "message": type(error).__name__, "exit_code": 1}
    known = {
        ReadingRefusedError: "reading_refused",
        ConsentMissingError: "consent_missing",
        StoppedError: "stopped",
        StoreBusyError: "store_busy",
        StoreError: "store_unusable",
        InputError: "bad_request",
        ValueError: "bad_request",
    }
    codes = {4: "part_missing", 5: "model_refused", 6: "outside_condition"}
    code = getattr(error, "code", None) if isinstance(error, RequestError) else None
    if code is None:
        code = next((name for kind, name in known.items() if isinstance(error, kind)), None)
    found: dict[str, object] = {
        "code": code or codes.get(exit_code, "refused"),
        "message": " ".join(str(error).split())[:500],
        "exit_code": exit_code,
    }
    if isinstance(error, ReadingRefusedError):
        found["reason"] = error.reason
    return found


def _object_of(line: bytes) -> Fields:
    from models.wire.codec import parse_object
    from models.wire.errors import WireError

    try:
        return parse_object(line, limit=MAX_REQUEST_BYTES)
    except WireError as error:
        raise RequestError("bad_json", str(error)) from None


def _id_of(body: Fields) -> object:
    said = body.get("id")
    is_text = isinstance(said, str) and len(said) <= MAX_ID_CHARACTERS
    is_number = isinstance(said, int) and not isinstance(said, bool) and abs(said) < 2**53
    if said is None or is_text or is_number:
        return said
    what = f"id must be a text of at most {MAX_ID_CHARACTERS} characters, or a whole number"
    raise RequestError("bad_request", what)


def _result(client: EdgeClient, body: Fields, now: Callable[[], datetime]) -> Answer:
    if body.get("protocol", PROTOCOL) != PROTOCOL:
        what = f"this client speaks protocol {PROTOCOL}, not {str(body['protocol'])[:20]}"
        raise RequestError("unsupported_protocol", what)
    name = body.get("do")
    request = REQUESTS.get(name) if isinstance(name, str) else None
    if request is None:
        what = f"do must be one of {', '.join(REQUESTS)}, got {str(name)[:40]!r}"
        raise RequestError("unknown_request", what)
    unknown = sorted(set(body) - set(COMMON_FIELDS) - set(request.fields))
    if unknown:
        known = ", ".join((*COMMON_FIELDS, *request.fields))
        what = f"{name} has no field {unknown[0][:40]!r}; known are {known}"
        raise RequestError("bad_request", what)
    given = {key: body[key] for key in request.fields if body.get(key) is not None}
    for key, value in given.items():
        kind = request.fields[key]
        if not isinstance(value, kind):
            raise RequestError("bad_request", f"{key} must be {_kind_words(kind)}")
    return request.answer(client, given, _moment_of(body) or now())


def _kind_words(kind: type | tuple[type, ...]) -> str:
    words = {str: "a text", bool: "true or false", dict: "an object", list: "a list"}
    return words[kind] if isinstance(kind, type) else " or ".join(words[one] for one in kind)


def _moment_of(body: Fields) -> datetime | None:
    text = body.get("now")
    if text is None:
        return None
    from .commands.answers import moment

    try:
        return moment(text if isinstance(text, str) else "")
    except ValueError:
        what = "now must be a time with its zone, such as 2026-01-31T08:00:00Z"
        raise RequestError("bad_request", what) from None


def _needed(given: Fields, key: str) -> Any:
    if key not in given:
        raise RequestError("bad_request", f"{key} is missing")
    return given[key]


def _hello(client: EdgeClient, _given: Fields, _now: datetime) -> Answer:
    from models.bundle import CLIENT_VERSION
    from models.feature_spec import FEATURE_SPEC_VERSION

    return {
        "protocol": PROTOCOL,
        "client_version": ".".join(map(str, CLIENT_VERSION)),
        "feature_spec_version": FEATURE_SPEC_VERSION,
        "device_id": client.profile.device_id,
        "requests": list(REQUESTS),
        "max_request_bytes": MAX_REQUEST_BYTES,
    }


def _record(client: EdgeClient, given: Fields, now: datetime) -> Answer:
    from .sensors import reading_of

    if ("reading" in given) == ("readings" in given):
        raise RequestError("bad_request", "give either reading or readings")
    device_id = client.profile.device_id
    if "reading" in given:
        fields = {"at": now.isoformat()} | given["reading"]
        made = reading_of(fields, where="reading", device_id=device_id)
        if isinstance(made, ReadingRefusedError):
            client.store.count_refusal(made.reason)
            raise made
        client.record(made, now=now)
        return {"stored": 1, "refused": {}}
    rows = given["readings"]
    if len(rows) > MAX_READINGS or not all(isinstance(row, dict) for row in rows):
        what = f"readings must be a list of at most {MAX_READINGS} objects"
        raise RequestError("bad_request", what)
    done = client.record_many(
        [
            reading_of(row, where=f"readings[{number}]", device_id=device_id)
            for number, row in enumerate(rows)
        ],
        now=now,
    )
    return {"stored": done.num_kept, "refused": dict(done.refused)}


def _predict(client: EdgeClient, given: Fields, now: datetime) -> Answer:
    from .commands.prediction import report_json
    from .link.configuration import require_prediction

    require_prediction(client.store)
    return report_json(client.predict(now, explain=bool(given.get("reasons", True))))


def _explain(client: EdgeClient, given: Fields, now: datetime) -> Answer:
    from .explanations.audiences import Audience, owner_sentences, support_figures
    from .explanations.audit_record import audit_record
    from .explanations.evidence import gather_evidence
    from .wording import chosen_language, load_wording

    audience = given.get("audience", Audience.OWNER.value)
    if audience not in {known.value for known in Audience}:
        what = f"audience must be one of {', '.join(Audience)}, got {audience[:40]!r}"
        raise RequestError("bad_request", what)
    language = given.get("language") or client.store.language
    try:
        chosen_language(language)
    except ValueError as error:
        raise RequestError("bad_request", f"language {error}") from None
    answer = _predict(client, {}, now)
    evidence = gather_evidence(client)
    if audience == Audience.COMPLIANCE.value:
        return {"record": audit_record(evidence)}
    answer |= {
        "sentences": list(client.reasons(language)),
        "figures": asdict(client.figures),
        "explanation": owner_sentences(evidence, load_wording(language)),
    }
    return answer | support_figures(evidence) if audience == Audience.SUPPORT.value else answer


def _status(client: EdgeClient, _given: Fields, _now: datetime) -> Answer:
    from .commands.ledger import training_json
    from .sensing.sampler import last_reading_at

    store = client.store
    first, last = store.first_reading_at(), last_reading_at(client)
    states: dict[str, int] = {}
    for notice in store.notices():
        states[notice.state.value] = states.get(notice.state.value, 0) + 1
    return {
        "device_id": client.profile.device_id,
        "readings": store.num_readings(),
        "first_reading_at": None if first is None else first.isoformat(),
        "last_reading_at": None if last is None else last.isoformat(),
        "refusals": store.refusals(),
        "consents": {purpose.value: said.granted for purpose, said in store.consents().items()},
        "training": training_json(store),
        "waiting": len(store.outbox()),
        "notices": states,
        "language": store.language,
        "model_version": client.predictor.bundle.version,
    }


def _consent(client: EdgeClient, given: Fields, now: datetime) -> Answer:
    from .store.mailbox import Purpose

    if given:
        purpose, granted = _needed(given, "purpose"), _needed(given, "granted")
        if purpose not in {known.value for known in Purpose}:
            what = f"purpose must be one of {', '.join(Purpose)}, got {purpose[:40]!r}"
            raise RequestError("bad_request", what)
        client.store.set_consent(Purpose(purpose), granted=granted, now=now)
    return {
        purpose.value: {
            "granted": said.granted,
            "changed_at": None if said.changed_at is None else said.changed_at.isoformat(),
        }
        for purpose, said in client.store.consents().items()
    }


def _notices(client: EdgeClient, _given: Fields, now: datetime) -> Answer:
    from models.wire.codec import decode
    from models.wire.messages import Notice

    from .link.admission import end_of

    found: list[dict[str, object]] = []
    over = 0
    for stored in client.store.notices():
        notice = decode(stored.body.encode(), Notice)
        if end_of(notice, now=now, pack_since=client.pack_since) is not None:
            over += 1
            continue
        shown = client.handle_notice(notice, now).as_json()
        received_at = stored.received_at.isoformat()
        found.append(
            {"id": stored.message_id, "state": stored.state, "received_at": received_at} | shown
        )
    return {"notices": found, "over": over}


def _answer(client: EdgeClient, given: Fields, now: datetime) -> Answer:
    from .link.notice_receiver import ANSWERS, answer_notice

    notice_id, word = _needed(given, "notice"), _needed(given, "word")
    if word not in ANSWERS:
        what = f"word must be one of {', '.join(ANSWERS)}, got {word[:40]!r}"
        raise RequestError("bad_request", what)
    device_id = client.profile.device_id
    try:
        stored = answer_notice(client.store, notice_id, ANSWERS[word], device_id=device_id, now=now)
    except KeyError:
        what = f"there is no notice {notice_id[:40]!r}"
        raise RequestError("no_such_notice", what) from None
    return {"id": stored.message_id, "state": stored.state}


def _outbox(client: EdgeClient, _given: Fields, now: datetime) -> Answer:
    from .link.configuration import PREDICTION, stopped
    from .summaries import leaving_fields

    summary = None
    if PREDICTION not in stopped(client.store):
        client.predict(now, explain=False)
        summary = client.preview_summary(now)
    return {
        "waiting": [
            {"purpose": item.purpose.value, "topic": item.topic, "payload": item.text()}
            for item in client.store.outbox()
        ],
        "next_summary": []
        if summary is None
        else [asdict(field) for field in leaving_fields(summary)],
    }


def _export(client: EdgeClient, _given: Fields, _now: datetime) -> Answer:
    return client.store.export()


REQUESTS: dict[str, Request] = {
    "hello": Request({}, "versions, and what can be asked", _hello),
    "record": Request(
        {"reading": dict, "readings": list}, "stores one reading, or up to 500", _record
    ),
    "predict": Request({"reasons": bool}, "the report", _predict),
    "explain": Request(
        {"language": str, "audience": str}, "the report with sentences and own figures", _explain
    ),
    "status": Request({}, "counts of what the store holds, and the model's version", _status),
    "consent": Request(
        {"purpose": str, "granted": bool}, "shows or changes the owner's word", _consent
    ),
    "notices": Request({}, "the notices that count, as their owner reads them", _notices),
    "answer": Request(
        {"notice": str, "word": str}, "says for the owner what a button says", _answer
    ),
    "outbox": Request({}, "what waits to leave, and what the next summary would say", _outbox),
    "export": Request({}, "everything that the store holds", _export),
}
"""Every request by name. A field or request may be added; none changes its meaning."""
