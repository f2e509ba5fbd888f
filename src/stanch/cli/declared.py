"""What every command asks permission for and records: kinds of acts, or the reason why it asks for none.

A command that stands here nowhere does not start.
"""

ACTS: dict[str, tuple[str, ...]] = {
    "access add": ("access.add",),
    "access grant": ("access.grant",),
    "access revoke": ("access.revoke",),
    "audit gate": ("audit.gate",),
    "audit run": ("audit.run",),
    "data canaries inject": ("data.inject",),
    "data dedup": ("data.dedup",),
    "data index build": ("data.index",),
    "data manifest": ("data.manifest",),
    "data split": ("data.split",),
    "demo": (
        "data.scan", "data.dedup", "data.inject", "data.index", "tune.run", "audit.run",
        "audit.gate", "release.propose", "release.approve", "release.create", "access.add", "trace.open", "trace.plan",
        "trace.examine", "trace.pack",
    ),
    "key rotate": ("key.rotate",),
    "log prove": ("log.read",),
    "log show": ("log.read",),
    "release approve": ("release.approve",),
    "release create": ("release.create",),
    "release propose": ("release.propose",),
    "scan": ("data.scan",),
    "trace pack": ("trace.pack",),
    "trace run": ("trace.open", "trace.plan", "trace.examine"),
    "tune run": ("tune.run",),
}  # fmt: skip

NO_ACT: dict[str, str] = {
    "access who": "reads who is registered; whoever may read the workspace's folder may",
    "access why": "asking about oneself needs no permission",
    "audit scores": "computes from a file that is given",
    "audit verify": "computes from files that are given",
    "config show": "reads settings; secrets are references",
    "data canaries plan": "draws coins and writes them to your own file; the act is to inject them",
    "doctor": "reads what whoever owns the workspace's files can read",
    "guard check": "filters text that is given",
    "init": "there is nobody yet who could permit it: whoever makes a workspace is its first principal",
    "key new": "makes a key of your own",
    "key list": "shows names and public halves of keys that lie in the workspace's folder",
    "key show": "reads a key file that is given",
    "log verify": "must also work when the log takes no entries; whoever has its files can check them",
    "release open": "opens a copy with your own key; no workspace is needed",
    "seal create": "seals your own files; no workspace is needed",
    "seal ls": "shows what anybody can see",
    "seal rekey": "uses your own key; no workspace is needed",
    "seal unseal-unsafe": "uses your own key; no workspace is needed",
    "seal verify": "checks what anybody can check",
    "status": "reads what whoever owns the workspace's files can read",
    "trace verify": "checks a pack that is given",
    "tune demo-batch-loss": "computes on made-up numbers",
    "tune fetch-model": "brings a public model",
    "tune verify": "computes from files that are given",
}
