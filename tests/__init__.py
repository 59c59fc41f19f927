"""Tests with the real thing: real nginx, real files, real clients."""

import pytest

# What these assert is shown in full, as if it stood in the tests.
pytest.register_assert_rewrite("tests.render.contract", "tests.render.refusals", "tests.clients.real_images")
