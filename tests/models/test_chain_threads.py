"""Work spread over threads of one core."""

import threading

import pytest
import torch

from models.chain_threads import ChainThreads, shares


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_cover_the_batch_in_nearly_equal_parts(length: int, count: int) -> None:
    parts = shares(length, count)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(length))
    sizes = [part.stop - part.start for part in parts]
    assert len(parts) == min(length, count)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_each_thread_has_one_core_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    threads, meeting = ChainThreads(3), threading.Barrier(3)

    def look(number: int) -> tuple[int, int, str]:
        meeting.wait(10)
        return number, torch.get_num_threads(), threading.current_thread().name

    found = threads.map(look, [0, 1, 2])
    threads.close()
    assert [number for number, _, _ in found] == [0, 1, 2]
    assert {count for _, count, _ in found} == {1}
    assert len({name for _, _, name in found}) == 3
    assert torch.get_num_threads() == before
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [before]


def test_an_exception_reaches_the_caller() -> None:
    threads = ChainThreads(2)
    with pytest.raises(ZeroDivisionError):
        threads.map(lambda number: 1 // number, [1, 0])
    threads.close()


def test_one_thread_is_the_caller() -> None:
    assert ChainThreads(1).map(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]
