"""Questions that are calculations, such as "what is 20% of 150?": recognized and computed without a model.

It imports `text`. Begin with calculation.py.

calculation.py  is it one, and what is its value?
notation.py     how it is written; phrases.py: in which words, of five languages, as data
certainty.py    could it be a date, a range, a phone number?
"""
