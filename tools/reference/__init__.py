"""The pages of docs/reference/ that are made from the code: ``make reference``.

They are committed, and a test compares them with what this makes: so they can be read where the
repository is, the site's builder needs no plugin, and a change of the code shows in the pages' diff.
What the code doesn't say (a meaning, the errors of a type) is in ``texts.py``. The examples are
recorded by ``tests/integration/test_reference_examples.py``, which runs them.
"""
