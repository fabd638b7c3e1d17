"""A real broker, a listener to it, and a publisher in this process."""

import pytest
import stand_ins
from broker import Broker, Listener


@pytest.fixture
def make_broker(tmp_path):
    """`make_broker(*lines)` starts a broker."""
    made = []

    def make(*lines):
        try:
            made.append(Broker(tmp_path, *lines))
        except stand_ins.Missing as error:
            pytest.skip(str(error))
        return made[-1].start()

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def listen():
    made = []

    def make(broker, name="listener"):
        made.append(Listener(broker, name))
        broker.save()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def publish():
    made = []

    def make(*words, **more):
        from publishing import Publisher  # needs paho

        made.append(Publisher(*words, **more))
        return made[-1]

    yield make
    for one in made:
        one.mqtt.stop()
