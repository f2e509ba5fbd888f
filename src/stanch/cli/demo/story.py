"""The eleven steps of the demo, in order. Each calls the verb that its command calls."""

from stanch.cli.demo import after, before, release
from stanch.cli.demo.scene import Scene


def play(scene: Scene) -> None:
    """Run all steps; finished ones are not run again."""
    scene.say("A company tunes a support chatbot on its customers' records. Watch it leak, and be stopped.", bold=True)
    scene.step(1, "data", "What is in the export?", lambda: before.prepare_data(scene))
    scene.step(2, "tune", "Tune on it as it is", lambda: before.tune_plain(scene))
    scene.step(3, "audit", "Does the tuned model leak?", lambda: before.audit_plain(scene))
    scene.step(4, "private", "Tune again: scrubbed, de-duplicated, with privacy", lambda: before.tune_private(scene))
    scene.step(5, "audit-2", "Does this one leak?", lambda: before.audit_private(scene))
    scene.step(6, "release", "Three recipients, three copies, two people agree", lambda: release.release_copies(scene))
    scene.step(7, "open", "A recipient opens her copy; others cannot", lambda: release.open_copies(scene))
    scene.step(8, "trace", "A copy is stolen, merged, quantised, tuned further", lambda: after.trace_theft(scene))
    scene.step(9, "ledger", "Who did what? And if somebody changes the record?", lambda: after.check_ledger(scene))
    scene.step(10, "guard", "Ask the leaking model again, through the guard", lambda: after.ask_guarded(scene))
    scene.step(11, "report", "The pictures and the evidence", lambda: after.write_report(scene))
