import os

import pytest
from sidecar import Sidecar

from flywheel_client import Client


def pytest_configure():
    if not os.environ.get("FLYWHEEL_SIDECAR"):
        raise pytest.UsageError("FLYWHEEL_SIDECAR names the program: cargo build -p flywheel-sidecar, then its path")


@pytest.fixture
def absent():
    """A sidecar that has not been started."""
    sidecar = Sidecar()
    yield sidecar
    sidecar.remove()


@pytest.fixture
def sidecar(absent):
    return absent.start()


@pytest.fixture
def make_client(absent):
    """Makes clients that end with the test, whatever is left in them."""
    clients = []

    def make(url=None, **options):
        clients.append(Client(url or absent.url, "rows", **{"model_version": "1", **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.close(0)


@pytest.fixture
def client(make_client):
    return make_client()


def log(client, score=0.5, **features):
    return client.log_prediction(entity={"customer": "c"}, features=features, prediction={"score": score})


@pytest.fixture(name="log")
def _log():
    return log
