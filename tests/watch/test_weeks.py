"""Traffic as it is: people who work when others do not, machines that never sleep, models that write more at weekends.

The promise is judged at a lower threshold, of those alone whose week is another one.
"""

import numpy as np
import pytest

from stanch.watch import synth
from stanch.watch.drift import DriftBank
from stanch.watch.drift import drift_detector as drift
from stanch.watch.esr import PROMISE, WEEK, RateBank
from stanch.watch.events import FEATURES
from stanch.watch.mmd import WindowBook
from stanch.watch.simulate import judge, play
from stanch.watch.week import DAY, MOST_K, own_week

THRESHOLD = 1e3
PRINCIPALS, WEEKS = 100, 8


def weeks_of(kind, generator):
    """Return the factors of a week, (168, principals), and how many of the principals differ."""
    factors, odd = np.tile(synth.working_week()[:, None], (1, PRINCIPALS)), 20
    match kind:
        case "nights":
            factors[:, :odd] = np.roll(factors[:, :odd], 12, axis=0)
        case "weekends":
            factors[:, :odd] = np.roll(factors[:, :odd], 3 * DAY, axis=0)
        case "round the clock":
            factors[:, :odd] = 1.0
        case "each as they like":
            habits = np.exp(np.repeat(generator.normal(0, 0.3, (8, PRINCIPALS)), 3, axis=0))
            factors, odd = factors * np.tile(habits, (7, 1)), PRINCIPALS
    return factors / factors.mean(axis=0), odd


@pytest.mark.parametrize("kind", ["nights", "weekends", "round the clock", "each as they like"])
def test_another_week_is_no_rise(kind):
    generator = np.random.default_rng(3)
    factors, odd = weeks_of(kind, generator)
    mean = np.tile(factors, (WEEKS, 1)) * generator.gamma(2.0, 10.0, PRINCIPALS)
    counts = generator.negative_binomial(5, 5 / (5 + mean)).astype(float)
    alarms, exposure = play(RateBank(1, threshold=THRESHOLD), counts[:, :, None], "m", lambda *_: None, "")
    mine = int((alarms[:, 1] < odd).sum())
    assert judge("D2", PROMISE, mine, exposure * odd // PRINCIPALS, most=1 / THRESHOLD).verdict == "holds"
    start = (WEEKS - 1) * WEEK + 9
    counts[start:] *= 2
    alarms, _ = play(RateBank(1), counts[:, :, None], "m", lambda *_: None, "")
    assert len({row for hour, row in alarms if hour >= start}) > 0.7 * PRINCIPALS, "a rise is still found"


def test_a_week_like_that_of_all_is_that_of_all():
    generator, week = np.random.default_rng(1), synth.working_week()
    counts = generator.negative_binomial(5, 5 / (5 + 20 * week[:, None] * np.ones(200))).astype(float)
    found = own_week(counts, np.tile(week[:, None], (1, 200)), np.arange(WEEK))
    alike = (found.factors == 1).all(axis=0)
    assert alike.mean() > 0.85
    assert (found.most_k[alike] == MOST_K).all()
    # Who works at night is known for it after one week, and hours that are left out spoil nothing.
    counts[::29] = np.nan
    own = own_week(np.roll(counts, 12, axis=0), np.tile(week[:, None], (1, 200)), np.arange(WEEK))
    usual = week[:, None] * own.usual
    assert np.corrcoef(usual.mean(axis=1), np.roll(week, 12))[0, 1] > 0.85
    nothing = own_week(np.zeros((WEEK, 3)), np.ones((WEEK, 3)), np.arange(WEEK))
    assert (nothing.factors == 1).all()


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        ("the same", lambda _: 400),
        ("nights", lambda hour: 440 if hour % DAY < 8 else 400),
        ("weekends", lambda hour: 500 if hour // DAY % 7 >= 5 else 400),
    ],
)
def test_answers_that_are_longer_at_times_are_no_drift(kind, length):
    generator, hours, models = np.random.default_rng(1), 16 * WEEK, 8
    answers = generator.poisson(50, (hours, models))
    means = np.array([length(hour) for hour in range(hours)])[:, None]
    lengths = generator.normal(means, 120 / np.sqrt(np.maximum(answers, 1))) * answers
    alarms, exposure = play(
        DriftBank(1, threshold=THRESHOLD), np.stack([answers, lengths], axis=-1), "mean", lambda *_: None, ""
    )
    assert judge("D7", drift().promise, len(alarms), exposure, most=1 / THRESHOLD).verdict == "holds", kind
    start = 15 * WEEK
    lengths[start:] *= 1.5
    alarms, _ = play(DriftBank(1), np.stack([answers, lengths], axis=-1), "mean", lambda *_: None, "")
    assert len({row for hour, row in alarms if hour >= start}) == models, kind


def test_a_window_of_fewer_prompts_is_no_other_subject():
    """A window is sent after a day, or when the gateway ends, with 100 prompts and more."""
    generator, people, features = np.random.default_rng(1), 40, 64
    waves, phases = generator.normal(size=(features, 16)), generator.uniform(0, 2 * np.pi, features)
    centres = generator.normal(size=(people, 16)) * 0.6

    def window(row, count):
        prompts = centres[row] + generator.normal(size=(count, 16)) * 0.8
        found = np.zeros(FEATURES)
        found[:features] = np.cos(prompts @ waves.T / 6 + phases).mean(axis=0)
        return found

    book = WindowBook(alpha=0.01)
    book.grow(people)
    for turn in range(22):
        for row in range(people):
            count = int(generator.integers(100, 200)) if (turn + row) % 4 == 0 else 200
            book.judge(row, window(row, count), count)
    for count in (100, 200):
        beyond = 0
        for row in range(people):
            for _ in range(12):
                statistic, threshold = book.measure(row, window(row, count), count)
                beyond += statistic > threshold
        assert beyond / people / 12 < 0.03, count
    stranger, threshold = book.measure(0, window(1, 100), 100)
    assert stranger > threshold
