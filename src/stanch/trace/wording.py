"""The fixed sentences of a report."""

from stanch.mark import Variant

VARIANTS = {
    Variant.PLAIN: "compares weight by weight",
    Variant.PROJECTED: "also removes what scaling, merging with the base, shifts of rows, and rounding explain",
    Variant.SPECTRAL: "also mutes what later tuning changes",
    Variant.TANGENT: "reads the mark out of a change from the base that was cut to a low rank",
    Variant.ALIGNED: "also undoes permutations, rotations and scales that leave a model as it is",
    Variant.ADAPTER: "reads the mark out of the change of the merged weights, whatever was done to the factors",
}

_COMMITTED = (
    "Before any copy of the release was made, a secret key was drawn for each recipient, and the log received a digest "
    "that fixes all these keys. From its key and from a checkpoint that the log signed later, each copy got its own "
    "direction: a small random change of every marked weight. The directions of two copies are independent of each "
    "other, and nobody without the key can compute one."
)
_COMPARED = (
    "To examine a suspect, the original is subtracted from it. What remains is compared with the direction of every "
    "recipient. The comparison gives one number a recipient, z. For a recipient from whose copy the suspect was not "
    "made, z stays near 0 as a number drawn from the normal distribution with deviation 1 does, whatever the suspect "
    "is, because the direction was drawn independently. For a copy it grows with the number of marked weights."
)
_DECIDED = (
    "What would be compared, how often, and the threshold were written down and logged before the first comparison. "
    "The threshold is τ = √(2 ln(n·T/ε)) for n keys that may have been issued and T analyses, those of this pack "
    "among them; every recipient whose z reaches it is accused, not only the highest."
)
METHOD = (_COMMITTED, _COMPARED, _DECIDED)

ASSUMPTIONS = {
    "The keys were secret and random.": "The log holds a digest of all keys: ledger/commitment.json. {decoys} keys "
    "that were fixed with them and never issued are opened in the pack; they score like noise.",
    "The keys were fixed before the suspect existed.": "ledger/commitment.tlog-proof places their digest as entry "
    "{entry} of the log, made before the suspect was found; the directions also depend on the checkpoint in that "
    "proof, which did not exist before, and which ledger/beacon.json pins before there was any copy.",
    "The analyses were fixed before the first score.": "ledger/plan.tlog-proof places the plan's digest as entry "
    "{plan} of the log, after the keys.",
    "The suspect is what was received.": "custody.jsonl is a chain of digests; the plan pins its head at planning.",
    "No later model of the owner was made from one of these copies.": "All copies of a model that was tuned from a "
    "marked copy carry that recipient's mark. stanch release propose scores a model under the keys of all earlier "
    "releases and refuses it at τ; the log names those that it could not look at. It sees no model made elsewhere.",
    "The original was not altered.": "Its digest {original} is bound into every key and into the plan; so is, in the "
    "plan, that of the base model, where there is one.",
}

ALTERNATIVES = {
    "The copy was stolen from the recipient, or taken by somebody there.": "Nothing in this report speaks against it: "
    "the finding names a copy, not a person.",
    "Somebody at the owner made or leaked that copy.": "The owner can make any recipient's copy again. Who used the "
    "release's secret, and who fetched sealed copies, stands in the owner's log.",
    "The recipient's key had been disclosed before.": "Whoever held an earlier evidence pack about this recipient "
    "could add the mark to any model. The log shows when packs were written; nobody is accused whose key had been "
    "opened before the suspect was taken into custody.",
    "The owner made up the features in this pack, or shows those that suit.": "They depend on no key: whoever has the "
    "suspect and the original can compute them again: verifier/recompute.py. Which of them are shown follows from the "
    "digest of the keys and the checkpoint, both in the log before the suspect was found; verify.py draws them again.",
}

NOT_SHOWN = (
    "It does not show who copied, leaked or published the file, or why.",
    "It does not show that recipients who are not accused took no part.",
    "It does not cover text that the model wrote, nor models trained on such text.",
)

REPEAT = (
    "Take the folder verifier out of the pack, or from a source of your own, and run verify.py with Python 3.11 or "
    "later and numpy: it checks signature, log, keys, plan, custody and scores, and names the first step that does not "
    "hold. The case key and the log's key must come from elsewhere than this pack. Whoever is entrusted with the "
    "release's keys can repeat the whole examination with stanch."
)

FIXED = (
    "What would be compared, how often, and the threshold τ = √(2 ln(n·T/ε)) were written down and logged, as entry "
    "{plan}, before the first comparison: no analysis was added because the first ones found nobody."
)

NOT_EXCLUDED = (
    "It does not show that the suspect was made without a copy: one that was changed further may score like noise.",
    "It is about release {release} alone. Copies of other releases were not looked for.",
    "It does not clear any recipient of anything else.",
    "It does not cover text that the model wrote, nor models trained on such text or distilled from it.",
)
NOT_DECIDED = (
    "It shows neither that the suspect was made from a recipient's copy nor that it was not.",
    "It says nothing against any recipient, also where one is named above.",
    *NOT_EXCLUDED[1:],
)

REPEAT_WHOLE = (
    "Whoever is entrusted with the release's keys, and has the suspect and the original, can repeat the whole "
    "examination with stanch; the same plan gives the same scores. There is no evidence pack: nobody is accused, so "
    "no key needs to be opened."
)
