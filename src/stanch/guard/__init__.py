"""The filter between a model and whoever asks it: training text, canaries, secrets and personal data do not pass.

A :class:`Guard` opens one :class:`GuardStream` for each string that a client would put together. Text goes in as the
model says it and comes out as far as nothing in it can still become a finding: clean prose is delayed by a word.

Example:
    >>> from stanch.guard import Guard, GuardPolicy
    >>> guard = Guard(GuardPolicy(canaries=("the code of the vault is 48151623",)))
    >>> stream = guard.open()
    >>> stream.feed("Write to ana@example.org. ").text
    'Write to <EMAIL>'
    >>> stream.feed("And the code of the vault is 4815").text
    '. And '
    >>> [finding.kind for finding in stream.feed("1623, as you know.").findings]
    ['canary']
    >>> stream.finish().action
    <Action.BLOCK: 'block'>

What it does not stop: paraphrase and translation of training text, a secret spelled over several answers, and other
encodings than those of :mod:`stanch.guard.decode`. Of a copied passage at most ``k + stride - 2`` folded characters
have left when the stream first holds.
:func:`stanch.guard.generate_torch.guarded_generate` puts a guard around a transformers model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
