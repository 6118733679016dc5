"""Named randomness: what it is for decides what is drawn."""

import hashlib

import numpy as np
import pytest
import torch

from models.streams import BLOCK, TWISTER_WORDS, ChainNoise, NoiseSource, Stream


def test_a_name_is_a_stream() -> None:
    a, b = Stream((0, "pgd", 1)), Stream((0, "pgd")).child(1)
    assert torch.equal(a.normal((5,)), b.normal((5,)))
    others = [Stream((0, "pgd", 2)), Stream((1, "pgd", 1)), Stream((0, "pgd", "1")), Stream((0, "pgd1"))]
    assert all(not torch.equal(a.normal((5,)), other.normal((5,))) for other in others)


def test_noise_is_standard_normal_and_streams_are_independent() -> None:
    """100,000 numbers: mean and variance within five standard errors, and no correlation between neighbours."""
    noise = ChainNoise([Stream((row,)) for row in range(100)])
    drawn = torch.stack([noise.at(step, torch.empty(100, 10)) for step in range(100)])
    count = drawn.numel()
    assert abs(float(drawn.mean())) < 5 / count**0.5
    assert abs(float(drawn.var()) - 1) < 5 * (2 / count) ** 0.5
    for shifted in (drawn.roll(1, 0), drawn.roll(1, 1), drawn.roll(BLOCK, 0)):
        assert abs(float((drawn * shifted).mean())) < 5 / count**0.5


def test_the_twister_of_a_stream_is_numpy_s_with_the_same_words() -> None:
    """The state is written into a torch.Generator byte by byte: an independent implementation reads it the same."""
    stream = Stream(("twister", 3))
    digest = hashlib.shake_256(b"str:twister/int:3/int:5").digest(4 * TWISTER_WORDS)
    twister = np.random.MT19937()
    state = dict(twister.state)
    state["state"] = {"key": np.frombuffer(digest, dtype="<u4").copy(), "pos": TWISTER_WORDS}
    twister.state = state
    drawn = torch.randint(2**16, (2000,), generator=stream.noise_generator(5))
    assert drawn.tolist() == (twister.random_raw(2000) % 2**16).tolist()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 5, 5), (2,)])
def test_noise_does_not_depend_on_how_many_steps_are_drawn_at_a_time(shape: tuple[int, ...]) -> None:
    whole, parts = torch.empty(7, *shape), torch.empty(7, *shape)
    NoiseSource(Stream(("source",)), torch.device("cpu")).fill(whole)
    source = NoiseSource(Stream(("source",)), torch.device("cpu"))
    for start, end in ((0, 1), (1, 4), (4, 7)):
        source.fill(parts[start:end])
    assert torch.equal(whole, parts)
    assert whole.unique().numel() == whole.numel()


def test_steps_may_be_asked_in_any_order_and_of_any_batch() -> None:
    streams = [Stream(("chain", row)) for row in range(5)]
    forward = ChainNoise(streams)
    like = torch.empty(5, 3, 2, 2)
    drawn = [forward.at(step, like) for step in range(2 * BLOCK + 3)]
    backward = ChainNoise(streams)
    for step in reversed(range(len(drawn))):
        assert torch.equal(backward.at(step, like), drawn[step])
    alone = ChainNoise(streams[3:4])
    assert torch.equal(alone.at(BLOCK + 1, like[:1])[0], drawn[BLOCK + 1][3])


def test_the_sampler_s_sequence_is_the_steps_in_order_and_padding_is_silent() -> None:
    noise = ChainNoise([Stream(("chain", row)) for row in range(2)])
    randn_like, like = noise.sequence(), torch.empty(4, 6)
    for step in range(BLOCK + 2):
        drawn = randn_like(like)
        assert torch.equal(drawn, noise.at(step, like))
        assert not drawn[2:].any()
