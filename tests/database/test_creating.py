"""A payment is stored by one statement, with all that follows from it or with nothing."""

import pytest

pytestmark = pytest.mark.infra
