"""What a free text says the answer is: a quantity, or a choice.

It imports `text`. Begin with extraction.py.

extraction.py  the final answer, and whether it is the right one
claims.py      where a text says what its answer is; what it denies and corrects
quantities.py  numbers, times, ratios and lists
choices.py     which of the choices a text speaks for
"""
