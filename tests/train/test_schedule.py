import math

import pytest

from vlm_train.schedule import Schedule, total_steps, warmup_steps


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(schedule.total_steps)]


def test_warm_up_rises_in_equal_steps_to_the_full_rate() -> None:
    assert factors(Schedule(total_steps=6, warmup_steps=4)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_decay_falls_evenly_over_all_that_follows_the_warm_up() -> None:
    schedule = Schedule(total_steps=6, warmup_steps=2, decay_type="linear")
    assert factors(schedule) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_the_decay_ratio_keeps_a_plateau_and_the_floor_holds() -> None:
    schedule = Schedule(total_steps=10, warmup_steps=0, decay_type="linear", decay_ratio=0.4, min_lr_factor=0.2)
    assert factors(schedule) == pytest.approx([1] * 7 + [0.8, 0.6, 0.4])


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 0.5), ("sqrt", 1 - math.sqrt(0.5)), ("none", 1.0)])
def test_the_named_shapes_pass_through_their_middle(decay: str, middle: float) -> None:
    schedule = Schedule(total_steps=8, warmup_steps=0, decay_type=decay)  # type: ignore[arg-type]
    values = factors(schedule)
    assert values[0] == 1.0
    assert values[4] == pytest.approx(middle)
    assert values == sorted(values, reverse=True)


def test_an_integer_warm_up_is_steps_and_a_float_up_to_1_is_a_part() -> None:
    assert warmup_steps(1, total_steps=50) == 1
    assert warmup_steps(1.0, total_steps=50) == 50
    assert warmup_steps(0.1, total_steps=50) == 5
    assert warmup_steps(20, total_steps=10) == 20


def test_a_warm_up_longer_than_the_run_never_decays() -> None:
    assert factors(Schedule(total_steps=4, warmup_steps=8, decay_type="cosine")) == [0.125, 0.25, 0.375, 0.5]


def test_training_ends_at_the_earlier_of_epochs_and_max_num_steps() -> None:
    assert total_steps(steps_per_epoch=10, epochs=3, max_num_steps=None) == 30
    assert total_steps(steps_per_epoch=10, epochs=3, max_num_steps=25) == 25
    assert total_steps(steps_per_epoch=10, epochs=3, max_num_steps=99) == 30
