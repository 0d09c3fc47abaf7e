"""No production path can be seeded: by the code's own text, and by trying."""

import ast
import inspect
import multiprocessing
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import privacy
from privacy import OperatingSystemNoise
from privacy.discrete_gaussian import discrete_gaussian
from privacy.keystream import new_key
from privacy.streams import CorrelatedNoise, new_stream_key
from tests.support.stream_policies import stream_policy

ROOT = Path(__file__).parents[3]
PRODUCTION = [
    path
    for package in ("privacy", "server", "edge_client")
    for path in sorted((ROOT / package).rglob("*.py"))
]
JITTER = {
    "edge_client/agent.py": {"random.Random"},
    "edge_client/commands/connection.py": {"random.SystemRandom"},
    "edge_client/commands/node.py": {"random.SystemRandom"},
    "edge_client/gateway/relay.py": {"random.SystemRandom"},
    "edge_client/link/release_watch.py": {"random.Random"},
    "edge_client/provisioning/renewal.py": {"random.Random"},
    "edge_client/rounds_node/endings.py": {"random.Random"},
    "server/broker_setup/probes.py": {"random.SystemRandom"},
    "server/commands/release.py": {"random.SystemRandom"},
    "server/hub.py": {"random.Random"},
    "server/releases/announcing_link.py": {"random.Random"},
    "server/outbox.py": {"random.Random"},
    "server/hub_process.py": {"random.Random", "random.SystemRandom"},
}
"""Where waits are spread: types of what is passed in, and the system's own generator."""
GENERATORS = ("random", "numpy.random", "torch.random")
SEEDED_CALLS = {
    "torch": {
        "manual_seed", "seed", "Generator", "default_generator", "rand", "randn", "randint",
        "randperm", "normal", "bernoulli", "multinomial", "poisson", "rand_like", "randn_like",
    }
}  # fmt: skip


@cache
def names_used(path):
    """Every dotted name that a module imports or reaches through one that it imports.

    A module whose text has none of the words is not parsed: a second's worth of others.
    """
    text, bound, used = path.read_text(), {}, set()
    if not any(word in text for word in ("random", "torch", "simulations", "streams")):
        return used
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                used.add(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                used.add(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id in bound:
            used.add(".".join([bound[inner.id], *reversed(parts)]))
    return used


def generators_in(path):
    found = set()
    for name in names_used(path):
        if any(name == banned or name.startswith(f"{banned}.") for banned in GENERATORS):
            found.add(name)
        module, _, last = name.rpartition(".")
        if last in SEEDED_CALLS.get(module, ()):
            found.add(name)
    return found


def test_no_production_module_reaches_a_generator_that_can_be_seeded():
    found = {
        path.relative_to(ROOT).as_posix(): generators
        for path in PRODUCTION
        if (generators := generators_in(path))
    }
    assert {name: uses for name, uses in found.items() if not uses <= JITTER.get(name, set())} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import random",
        "from random import gauss",
        "import numpy as np\nnp.random.default_rng(3)",
        "from numpy.random import Generator",
        "from numpy import random as chance\nchance.normal()",
        "import torch\ntorch.manual_seed(1)",
        "from torch import Generator",
        "import torch\ntorch.normal(0.0, 1.0, (3,))",
    ],
)
def test_the_search_finds_what_it_looks_for(tmp_path, text):
    path = tmp_path / "planted.py"
    path.write_text(text)
    assert generators_in(path)


def test_streams_are_made_in_named_places_from_keys_of_the_system_or_sealed_ones():
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in PRODUCTION
        if "privacy.streams.CorrelatedNoise" in names_used(path)
    }
    assert makers <= {
        "server/streams/stream_terms.py",
        "server/audits/canary_streams.py",
        "server/audits/inversion_audit.py",
        "server/engine/optimizer_gain.py",
    }


def test_all_entropy_of_noise_comes_from_the_operating_system(monkeypatch):
    # With the system's entropy held fast, everything repeats: there is no second source, so none
    # that could be seeded. Left alone, nothing does.
    free = drawn_after_seeding()
    monkeypatch.setattr("privacy.keystream.os.urandom", bytes)
    first, second = drawn_after_seeding(), drawn_after_seeding()
    assert first == second
    assert all(one != other for one, other in zip(free, first, strict=True))


def test_nothing_below_the_simulations_imports_them():
    importers = [
        path.relative_to(ROOT).as_posix()
        for path in PRODUCTION
        if any(name.split(".")[0] == "simulations" for name in names_used(path))
    ]
    assert importers == []


def test_no_public_constructor_takes_a_seed():
    makers = [getattr(privacy, name) for name in privacy.__all__] + [
        CorrelatedNoise, CorrelatedNoise.resumed, new_stream_key, new_key, discrete_gaussian,
    ]  # fmt: skip
    taken = {
        parameter
        for maker in makers
        if callable(maker) and hasattr(maker, "__module__") and maker.__module__ != "typing"
        if not (isinstance(maker, type) and issubclass(maker, Exception))
        for parameter in inspect.signature(maker).parameters
    }
    assert not {name for name in taken if "seed" in name or "rng" in name or "generator" in name}
    for source in (OperatingSystemNoise, new_key, new_stream_key):
        assert not inspect.signature(source).parameters


def drawn_after_seeding():
    """What every source of production gives right after all global generators were seeded."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    source = OperatingSystemNoise()
    return (
        source.gaussian(4, std=1.0).tobytes(),
        source.uniform(4).tobytes(),
        source.words(4).tobytes(),
        discrete_gaussian(10**12, 4, source).tobytes(),
        CorrelatedNoise(new_stream_key(), stream_policy()).noise(0, 4).tobytes(),
    )


def test_seeding_every_global_generator_repeats_nothing():
    first, second = drawn_after_seeding(), drawn_after_seeding()
    assert all(one != other for one, other in zip(first, second, strict=True))


def send_draws(connection, source):
    connection.send((source.gaussian(4, std=1.0).tobytes(), new_stream_key()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_processes_do_not_repeat_each_other():
    source, fork, seen = OperatingSystemNoise(), multiprocessing.get_context("fork"), []
    source.gaussian(4, std=1.0)
    for _ in range(3):
        receiving, sending = fork.Pipe(duplex=False)
        child = fork.Process(target=send_draws, args=(sending, source))
        child.start()
        seen.extend(receiving.recv())
        child.join()
    seen.append(source.gaussian(4, std=1.0).tobytes())
    assert len(set(seen)) == 7
