"""Strategies side by side on problems with known answers.

It imports `reasoning`, `answers`, `text` and `store`; a solver is given to it. Begin with trial.py.

trial.py        one strategy on all problems; row.py: what is kept of each
testsets.py     public sets by name; hub_rows.py: their rows
made.py         guidances that were made before
report.py       what rows say; failures.py: what went wrong; significance.py: how sure a difference is
table.py        as tables; page.py: as a page (page.html)
calibration.py  the best strategy into the model's entry
"""
