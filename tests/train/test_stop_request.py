import os
import signal

import pytest

from vlm_train.stop_request import SIGNALS, StopRequest


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_launcher_that_sends_its_signal_twice_ends_nothing_before_the_checkpoint(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.signal is None
        send(number)
        send(number)
        send(signal.SIGTERM)
        assert stop.signal == number


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest() as stop:
        send(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_the_handlers_of_before_are_back_at_the_end() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        send(signal.SIGINT)
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
