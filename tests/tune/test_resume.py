"""Runs that are killed at any moment and resumed: no charge is forgotten, no noise is used twice.

``STANCH_KILLS`` sets the number of kills; ``make nightly`` takes 100.
"""

import os
import random
import signal
import sys
from pathlib import Path

from stanch.tune import PrivacyPlan, verify_run
from stanch.tune.journal import read_journal

from .conftest import STEPS, spec_text, write_chats

LONGEST = 1.5
"""About as many seconds as a whole run takes."""
CHECKPOINT_EVERY = 2
KILLS = int(os.environ.get("STANCH_KILLS", "6"))


class Watch:
    """Follows the journal of one run from kill to kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.charged = 0
        self.plan: bytes | None = None

    def look(self) -> None:
        """Compare with the last look: the plan is the same, and no charge is gone."""
        if not (self.folder / "plan.json").exists():
            assert self.plan is None
            return
        data = (self.folder / "plan.json").read_bytes()
        assert self.plan in {None, data}
        self.plan = data
        head = read_journal((self.folder / "budget.jsonl").read_bytes(), PrivacyPlan.from_json(data)).head
        assert head.charged >= self.charged
        self.charged = head.charged


def test_killed_at_any_moment_a_run_forgets_no_charge_and_repeats_no_noise(nursery, base, tmp_path):
    data = write_chats(tmp_path / "chats.jsonl", 60)
    noted, rng = tmp_path / "noise", random.Random(int(os.environ.get("STANCH_SEED", "4")))
    killed = finished = lost = given_up = 0
    while killed < KILLS:
        output = tmp_path / f"out{finished}.{given_up}"
        watch = Watch(output.with_name(f"{output.name}.run"))
        while not output.exists():
            wait = rng.uniform(0, LONGEST) if killed < KILLS else None
            (code,) = nursery.run(
                job="run", spec_toml=spec_text(base, output), data=str(data), noted=str(noted), kill_after=wait
            )
            if code == 1 and nursery.complaints().count("ProgressLost") > given_up:
                # Killed between the first charge and the first checkpoint: nothing to go on with.
                assert 0 < watch.charged <= CHECKPOINT_EVERY
                assert not list(watch.folder.glob("checkpoint-?"))
                break
            assert code in {0, -signal.SIGKILL}, nursery.complaints()
            killed += code != 0
            if not output.exists():
                watch.look()
        if not output.exists():
            given_up += 1
            continue
        verified = verify_run(output)
        assert watch.plan in {None, (output / "plan.json").read_bytes()}
        assert verified.head.charged >= max(STEPS, watch.charged)
        lost += verified.head.charged - verified.statement.fields["updates"]
        finished += 1
    vectors = noted.read_bytes().split()
    assert len(vectors) == len(set(vectors))
    assert len(vectors) >= finished * STEPS
    # A kill loses at most the steps since the last checkpoint, the one that was under way included.
    assert 0 <= lost <= 2 * killed
    sys.stdout.write(f"{killed} kills, {finished} runs, {lost} lost steps, {len(vectors)} noise vectors\n")
