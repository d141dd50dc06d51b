from pylon_zoo.data.seeds import generator_for


def test_every_part_of_the_key_counts() -> None:
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(4)]
    draws = {generator_for(*key).initial_seed() for key in keys}
    assert len(draws) == len(keys)
    assert generator_for(1, 2**40).initial_seed() == generator_for(1, 2**40).initial_seed()
    assert generator_for(1, 2**40).initial_seed() != generator_for(1, 0).initial_seed()
