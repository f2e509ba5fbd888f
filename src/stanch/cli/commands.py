"""The table of commands: the root help reads it, so that ``stanch --help`` imports nothing else."""

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a command lives, what it does in one line, and under which heading the help lists it."""

    module: str
    summary: str
    section: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("stanch.cli.demo", "Watch a chatbot leak its records, and stanch stop it", "Start here"),
    "init": Entry("stanch.cli.init", "Make a workspace: keys, log, settings", "Start here"),
    "status": Entry("stanch.cli.init", "Say what the workspace holds and whether its log is whole", "Start here"),
    "doctor": Entry("stanch.cli.doctor", "Check environment, settings, keys, database and log", "Start here"),
    "threats": Entry("stanch.cli.threats", "What is defended, what proves it, and where it ends", "Start here"),
    "scan": Entry("stanch.cli.scan", "Find secrets and personal data; redact them", "A model's life"),
    "data": Entry(
        "stanch.cli.data", "Manifests, duplicates, splits, canaries, the training-text index", "A model's life"
    ),
    "tune": Entry("stanch.cli.tune", "Fine-tune, with differential privacy or without", "A model's life"),
    "audit": Entry("stanch.cli.audit", "Does the model leak what it was tuned on? The gate", "A model's life"),
    "release": Entry("stanch.cli.release", "Mark, seal and sign a copy for one recipient", "A model's life"),
    "inventory": Entry("stanch.cli.inventory", "Find stray plaintext copies of protected weights", "A model's life"),
    "guard": Entry("stanch.cli.guard", "Filter what a model says", "A model's life"),
    "gateway": Entry("stanch.cli.gateway", "Serve models to programs: recorded, guarded", "A model's life"),
    "watch": Entry("stanch.cli.watch", "Alerts, and the detectors that raise them", "A model's life"),
    "incident": Entry("stanch.cli.incident", "Alerts that belong together, with a clock of 72 hours", "A model's life"),
    "serve": Entry("stanch.cli.serve", "Gateway, watch and console, each a process", "A model's life"),
    "console": Entry("stanch.cli.console", "See and steer a workspace with a browser", "A model's life"),
    "trace": Entry("stanch.cli.trace", "From a copy that surfaced back to its recipient", "A model's life"),
    "rules": Entry("stanch.cli.rules", "What a scan looks for; try a pack of your own", "Means"),
    "key": Entry("stanch.cli.key", "Make and show keys", "Means"),
    "seal": Entry("stanch.cli.seal", "Encrypt a model or data set for named recipients", "Means"),
    "mark": Entry("stanch.cli.mark", "Mark copies, find them again, lineage; no workspace", "Means"),
    "sign": Entry("stanch.cli.sign", "Sign and verify models; inspect one before use", "Means"),
    "access": Entry("stanch.cli.access", "Who may do what", "Ground"),
    "config": Entry("stanch.cli.config", "The settings, and where each comes from", "Ground"),
    "migrate": Entry("stanch.cli.migrate", "Bring the workspace's database to this release", "Ground"),
    "log": Entry("stanch.cli.log", "The tamper-evident log of every act", "Ground"),
}
