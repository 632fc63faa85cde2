"""What every engine keeps to, the fake and the real one alike."""

import re

import pytest

from skyctl.operations.world import Engine


class EngineContract:
    """To be inherited by a test class that gives the two engines."""

    @pytest.fixture
    def managing(self) -> Engine:
        """An engine that manages a swarm."""
        raise NotImplementedError

    @pytest.fixture
    def outside(self) -> Engine:
        """An engine that is in no swarm."""
        raise NotImplementedError

    def test_a_manager_tells_an_address_with_its_port_and_a_token(self, managing: Engine) -> None:
        join = managing.worker_join()
        assert join is not None
        assert re.fullmatch(r"(\[[0-9a-f:]+\]|[\w.-]+):\d+", join.address)
        assert join.token.startswith("SWMTKN-1-")

    def test_it_tells_the_same_when_it_is_asked_again(self, managing: Engine) -> None:
        assert managing.worker_join() == managing.worker_join()

    def test_the_token_does_not_show(self, managing: Engine) -> None:
        join = managing.worker_join()
        assert join is not None
        assert join.token not in f"{join!r} {managing!r}"

    def test_outside_any_swarm_there_is_nothing_to_tell(self, outside: Engine) -> None:
        assert outside.worker_join() is None

    def test_a_manager_says_that_it_is_one(self, managing: Engine) -> None:
        state = managing.state()
        assert state is not None
        assert (state.swarm, state.manages, state.trouble) == ("active", True, "")
        assert re.match(r"\d+\.\d+", state.version)

    def test_an_engine_outside_any_swarm_says_so(self, outside: Engine) -> None:
        state = outside.state()
        assert state is not None
        assert (state.swarm, state.manages) == ("inactive", False)
