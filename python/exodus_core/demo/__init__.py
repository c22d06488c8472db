"""A demonstration in three parts: ``python -m exodus_core.demo``.

``claim`` compares the gradients of the three algorithms. ``fit`` and ``srm`` fit a spike train with LIF and
with SRM neurons. ``digits`` trains a classifier of handwritten digits. Each module has a function of its own
name that runs the experiment and returns the result, a function ``plot`` that draws the picture, and a
function ``table`` that returns the rows of the summary.
"""
