"""The paper of Zhang et al. (2019), computed again: figures, claims, verdicts.

===================  =======================================================
``results``          everything computed, once
``claims``           evidence, conditions and verdicts
``rules``            how conditions are read off tables, and when they hold
``optimizer_claims`` claims 1 to 4 and 8
``schedule_claims``  claims 5 to 7
``figures``          a figure as numbers
``risk_figures``     figures 1 and 2
``steps_figures``    figures 3a and 4, and those of claims 1 to 4 and 8
``schedule_figures`` figures 3b and 3c, and those of claims 5 to 7
``reproduction``     :func:`reproduce_paper`
===================  =======================================================
"""

from rightbatch.quadratic.paper.claims import Claim, Condition, Evidence
from rightbatch.quadratic.paper.figures import Curve, Figure, Panel
from rightbatch.quadratic.paper.reproduction import Paper, reproduce_paper
from rightbatch.quadratic.paper.results import PaperSetting

__all__ = [
    "Claim",
    "Condition",
    "Curve",
    "Evidence",
    "Figure",
    "Panel",
    "Paper",
    "PaperSetting",
    "reproduce_paper",
]
