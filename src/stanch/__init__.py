"""stanch: prevents, measures, detects and proves leaks of private data from tuned language models.

Every stage is a package of its own and works alone: :mod:`stanch.data`, :mod:`stanch.tune`, :mod:`stanch.audit`,
:mod:`stanch.mark`, :mod:`stanch.seal`, :mod:`stanch.sign`, :mod:`stanch.guard`, :mod:`stanch.trace`.
:mod:`stanch.workspace` joins them: there every act is authorised and recorded.
"""

__version__ = "0.1.0"
