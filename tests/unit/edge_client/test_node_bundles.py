"""The seam in Flower's SuperNode: what is not pinned is refused by Flower's own functions.

These tests fail where another version of Flower hands bundles to a node in another way.
"""

import contextlib
import inspect
import io
import json
import time
from datetime import UTC, datetime

import pytest
import yaml
from flwr.app import ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode
from flwr.supernode.nodestate import NodeStateFactory

from edge_client.rounds_node.pin_source import PinSource
from edge_client.rounds_node.supernode import PinnedBundles, SuperNodePlan
from models.wire.envelope import SigningKey
from tests.support.node_deployments import tiny_bundle

KEY = SigningKey.from_bytes(bytes(range(32)))
GOOD, BAD = tiny_bundle(), tiny_bundle(at_import="raise SystemExit")
RUN_ID, NODE_ID = 7, 11


@pytest.fixture
def told():
    return []


@pytest.fixture
def bundles(tmp_path, told, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    pins = PinSource(
        host="127.0.0.1",
        port=1,
        authorities=tmp_path / "none.pem",
        kept=tmp_path / "app-pin.json",
        file=tmp_path / "pin.json",
        keys={KEY.verify_key.key_id: KEY.verify_key.to_bytes().hex()},
    )
    pins.file.write_bytes(GOOD.pin(KEY, issued=datetime.now(UTC)))
    return PinnedBundles(
        pins, tmp_path / "flwr", lambda event, **facts: told.append((event, facts))
    )


class OneMessage:
    """A connection of Flower's that brings one message of a run of a bundle."""

    def __init__(self, bundle, *, verifications=None, **run):
        metadata = Metadata(
            run_id=RUN_ID,
            message_id="",
            src_node_id=1,
            dst_node_id=NODE_ID,
            reply_to_message_id="",
            group_id="",
            created_at=datetime.now(UTC).timestamp(),
            ttl=60.0,
            message_type="query",
        )
        self.message = make_message(metadata, RecordDict({"asked": ConfigRecord({"x": 1})}))
        metadata.__dict__["_message_id"] = self.message.object_id
        facts = {
            "fab_id": "fedcell/tiny",
            "fab_version": bundle.version,
            "fab_hash": bundle.sha256,
        } | run
        self.run = Run.create_empty(run_id=RUN_ID)
        for name, value in facts.items():
            setattr(self.run, name, value)
        self.fab = Fab(bundle.sha256, bundle.content, verifications or {})

    def parts(self):
        return (
            NODE_ID,
            lambda: (self.message, get_object_tree(self.message)),
            None,
            lambda _: self.run,
            lambda _hash, _run: self.fab,
            lambda _run, name: next(content for known, content in self.contents() if known == name),
            None,
            lambda _run, _message: None,
        )

    def contents(self):
        return [(name, one.deflate()) for name, one in get_all_nested_objects(self.message).items()]


def offered_to_flower(bundles, offered, *, is_judged=True):
    """Let Flower's own function take a message in; return the node's state and its replies."""
    factory = NodeStateFactory(ObjectStoreFactory())
    state, store = factory.state(), factory.objectstore_factory.store()
    state.set_node_id(NODE_ID)
    parts = bundles.connection(offered.parts()) if is_judged else offered.parts()
    _, receive, _, get_run, get_fab, pull_object, _, confirm = parts
    start_client_internal._pull_and_store_message(
        state=state,
        object_store=store,
        node_config={},
        receive=receive,
        get_run=get_run,
        get_fab=get_fab,
        pull_object=pull_object,
        confirm_message_received=confirm,
        trusted_entities=yaml.safe_load(bundles.trusted_entities()),
    )
    return state, state.get_messages_legacy(is_reply=True)


def was_refused(state, replies):
    assert state.get_run(RUN_ID) is None
    assert state.get_fab(BAD.sha256) is None
    assert state.get_fab(GOOD.sha256) is None
    return [reply.error.code for reply in replies] == [ErrorCode.INVALID_FAB]


def test_the_pinned_bundle_is_taken_and_installed_whole(bundles, told):
    state, replies = offered_to_flower(bundles, OneMessage(GOOD))

    assert not replies
    assert state.get_fab(GOOD.sha256).content == GOOD.content
    assert told == [("pinned", {"sha256": GOOD.sha256})]
    installed = bundles.home / "apps" / f"fedcell.tiny.1.0.0.{GOOD.sha256[:8]}"
    assert (installed / "tiny" / "apps.py").exists()
    assert not (bundles.home / "aside").exists()


def test_another_bundle_is_refused_by_flower_before_it_is_stored(bundles, told):
    assert was_refused(*offered_to_flower(bundles, OneMessage(BAD)))
    assert told[0][0] == "refused"
    assert told[0][1]["reason"] == "another_bundle"
    assert not (bundles.home / "apps").exists()


@pytest.mark.parametrize(
    "lie",
    [
        {"fab_hash": BAD.sha256},
        {"fab_version": "1.0.0/../../../../tmp/app"},
        {"fab_id": "fedcell/other"},
    ],
)
def test_a_run_that_lies_about_the_pinned_bundle_is_refused(bundles, lie):
    assert was_refused(*offered_to_flower(bundles, OneMessage(GOOD, **lie)))


def test_without_a_pin_nothing_is_run(bundles):
    bundles.pins.file.unlink()

    assert was_refused(*offered_to_flower(bundles, OneMessage(GOOD)))


def test_what_comes_by_another_way_has_no_word_of_this_process(bundles):
    """The seam is closed by default: where Flower asked somewhere else, it would run nothing."""
    other = PinnedBundles(bundles.pins, bundles.home, bundles.tell)
    vouched = other.judged(OneMessage(GOOD).fab, OneMessage(GOOD).run).verifications

    assert was_refused(*offered_to_flower(bundles, OneMessage(GOOD), is_judged=False))
    assert was_refused(
        *offered_to_flower(bundles, OneMessage(GOOD, verifications=vouched), is_judged=False)
    )


def test_a_signature_that_the_superlink_brings_along_counts_for_nothing(bundles):
    taken = bundles.judged(OneMessage(GOOD).fab, OneMessage(GOOD).run).verifications

    assert was_refused(*offered_to_flower(bundles, OneMessage(BAD, verifications=taken)))


def test_flower_is_made_as_the_seam_needs_it():
    assert inspect.getmodule(start_client_internal.http_request_response) is fleet_http_connection
    assert "http_request_response(" in inspect.getsource(start_client_internal._init_connection)
    assert "flwr_exit(" in inspect.getsource(fleet_http_connection.http_request_response)


def test_flower_takes_the_words_that_it_is_started_with(tmp_path):
    plan = SuperNodePlan(
        superlink="fleet:9443",
        host="fleet",
        port=9443,
        authorities="ca.pem",
        key="supernode",
        node_config="node.toml",
        api_port=9999,
        secret="secret",
        home=str(tmp_path),
        kept_pin="kept.json",
        pin_file="",
        pin_keys={"a": "b"},
    )

    with contextlib.redirect_stderr(io.StringIO()) as said:
        read = _parse_args_run_supernode().parse_args(plan.words()[1:])

    assert not said.getvalue()
    assert SuperNodePlan.from_bytes(plan.to_bytes()) == plan
    assert (read.superlink, read.root_certificates) == ("fleet:9443", "ca.pem")
    assert (read.isolation, read.insecure) == ("process", False)
    served = (read.ssl_certfile, read.ssl_keyfile, read.ssl_ca_certfile)
    assert served == tuple(str(tmp_path / f"loopback.{end}") for end in ("pem", "key", "pem"))
    assert read.trusted_entities == tmp_path / "trusted-entities.yaml"


def test_a_connection_of_another_form_is_not_used(bundles):
    with pytest.raises(ValueError, match="7 parts"):
        bundles.connection(OneMessage(GOOD).parts()[:-1])


def test_a_message_whose_app_gave_up_is_found_when_its_time_is_over(bundles):
    """Flower's loop would wait for ever for the reply of an app that ended without one."""
    offered = OneMessage(GOOD)
    offered.message.metadata.ttl = 0.01
    _, receive, send, *_ = bundles.connection(
        (*offered.parts()[:2], lambda *_: None, *offered.parts()[3:])
    )

    assert not bundles.unanswered.is_stuck()
    receive()
    time.sleep(0.02)
    assert bundles.unanswered.is_stuck()
    send(offered.message, None, 0.0)
    assert not bundles.unanswered.is_stuck()


def test_the_key_of_a_process_is_its_own(bundles):
    again = PinnedBundles(bundles.pins, bundles.home, bundles.tell)

    assert json.loads(again.trusted_entities()) != json.loads(bundles.trusted_entities())
